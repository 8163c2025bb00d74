# SPDX-License-Identifier: Apache-2.0
"""Row vid/ssv2_s16_k400 on Something-Something V2's test videos: scores for the leaderboard.

::

    mim test mmaction2 configs/submission/uniformer_s_16_ssv2_test.py --checkpoint CHECKPOINT
    uniformer-mm submit ssv2 work_dirs/submission/ssv2.pkl \
        --ids something-something-v2-test.json --name UniFormerS --output .

Every other row in one command: ``uniformer-mm submit ssv2 --config ROW ...``.
"""

_base_ = ['../video/uniformer_s_16_ssv2.py', '../_base_/submission/ssv2_test.py']

# The results keep which video they are of.
test_pipeline = [
    *_base_.test_dataloader.dataset.pipeline[:-1],
    dict(type='PackActionInputs', meta_keys=('img_shape', 'filename', 'frame_dir')),
]
test_dataloader = dict(dataset=dict(_base_.submission_set, pipeline=test_pipeline))
test_evaluator = _base_.submission_evaluator
