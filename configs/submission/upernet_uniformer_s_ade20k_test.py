# SPDX-License-Identifier: Apache-2.0
"""Row seg/upernet_s_g on ADE20K's test images: label maps for the leaderboard.

::

    mim test mmseg configs/submission/upernet_uniformer_s_ade20k_test.py --checkpoint CHECKPOINT
    uniformer-mm submit ade20k work_dirs/submission/ade20k_test \
        --ids data/ade/release_test/testing --name UniFormerS --output .

Every other row in one command: ``uniformer-mm submit ade20k --config ROW ...``.
"""

_base_ = ['../seg/upernet_uniformer_s.py', '../_base_/submission/ade20k_test.py']

test_pipeline = [
    step for step in _base_.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations'
]
test_dataloader = dict(dataset=dict(_base_.submission_set, pipeline=test_pipeline))
test_evaluator = _base_.submission_evaluator
