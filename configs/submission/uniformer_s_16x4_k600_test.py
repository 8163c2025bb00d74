# SPDX-License-Identifier: Apache-2.0
"""Row vid/k600_s_16x4 on Kinetics-600's test videos: scores for the leaderboard.

::

    mim test mmaction2 configs/submission/uniformer_s_16x4_k600_test.py --checkpoint CHECKPOINT
    uniformer-mm submit kinetics work_dirs/submission/kinetics600.pkl --ids kinetics600_test.csv \
        --class-order kinetics600_alphabetical --external-data 'ImageNet-1K pretraining' \
        --name UniFormerS --output .

Every other row in one command: ``uniformer-mm submit kinetics --config ROW ...``.
"""

_base_ = ['../video/uniformer_s_16x4_k600.py', '../_base_/submission/kinetics600_test.py']

# The results keep which video they are of.
test_pipeline = [
    *_base_.test_dataloader.dataset.pipeline[:-1],
    dict(type='PackActionInputs', meta_keys=('img_shape', 'filename', 'frame_dir')),
]
test_dataloader = dict(dataset=dict(_base_.submission_set, pipeline=test_pipeline))
test_evaluator = _base_.submission_evaluator
