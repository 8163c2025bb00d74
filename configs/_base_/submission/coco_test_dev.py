# SPDX-License-Identifier: Apache-2.0
"""COCO test-dev2017 for mmdet: no annotations, results are written instead of scored.

Written are ``PREFIX.bbox.json`` and ``PREFIX.segm.json``. Data root: the environment variable
UNIFORMER_DATA, else ``data/`` in the working directory.
"""

submission_set = dict(
    ann_file='annotations/image_info_test-dev2017.json', data_prefix=dict(img='test2017/')
)
submission_evaluator = dict(
    ann_file='{{$UNIFORMER_DATA:data}}/coco/' + submission_set['ann_file'],
    format_only=True,
    outfile_prefix='work_dirs/submission/coco_test_dev',
)
