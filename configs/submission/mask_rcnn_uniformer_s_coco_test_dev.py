# SPDX-License-Identifier: Apache-2.0
"""Row det/mask_rcnn_s_h14_1x on COCO test-dev2017: boxes and masks for the leaderboard.

::

    mim test mmdet configs/submission/mask_rcnn_uniformer_s_coco_test_dev.py --checkpoint CHECKPOINT
    uniformer-mm submit coco-det work_dirs/submission/coco_test_dev.bbox.json \
        --ids data/coco/annotations/image_info_test-dev2017.json --name UniFormerS --output .

Every other row in one command: ``uniformer-mm submit coco-det --config ROW ...``.
"""

_base_ = ['../det/mask_rcnn_uniformer_s.py', '../_base_/submission/coco_test_dev.py']

test_pipeline = [
    step for step in _base_.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations'
]
test_dataloader = dict(dataset=dict(_base_.submission_set, pipeline=test_pipeline))
test_evaluator = _base_.submission_evaluator
