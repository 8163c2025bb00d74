# SPDX-License-Identifier: Apache-2.0
"""Row pose/s_256x192 on COCO test-dev2017: keypoints for the leaderboard.

::

    mim test mmpose configs/submission/td_hm_uniformer_s_256x192_coco_test_dev.py \
        --checkpoint CHECKPOINT
    uniformer-mm submit coco-keypoints work_dirs/submission/coco_test_dev.keypoints.json \
        --ids data/coco/annotations/image_info_test-dev2017.json --name UniFormerS --output .

Every other row in one command: ``uniformer-mm submit coco-keypoints --config ROW ...``.
"""

_base_ = [
    '../pose/td_hm_uniformer_s_256x192.py',
    '../_base_/submission/coco_keypoints_test_dev.py',
]

test_dataloader = dict(dataset=_base_.submission_set)
test_evaluator = _base_.submission_evaluator
