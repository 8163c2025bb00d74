# SPDX-License-Identifier: Apache-2.0
"""ADE20K's test images (``release_test.zip``): label maps are written instead of scored.

Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working directory.
"""

submission_set = dict(
    data_root='{{$UNIFORMER_DATA:data}}/ade/release_test',
    data_prefix=dict(_delete_=True, img_path='testing'),
)
submission_evaluator = dict(
    _delete_=True,
    type='uniformer_mm.LabelMaps',
    output_dir='work_dirs/submission/ade20k_test',
)
