# SPDX-License-Identifier: Apache-2.0
"""Something-Something V2 test videos: scores are written instead of compared.

The list has "ID frames" or "ID frames label" lines. Data root: the environment variable
UNIFORMER_DATA, else ``data/`` in the working directory.
"""

submission_set = dict(ann_file='{{$UNIFORMER_DATA:data}}/sthv2/sthv2_test_list_rawframes.txt')
submission_evaluator = dict(
    _delete_=True, type='DumpResults', out_file_path='work_dirs/submission/ssv2.pkl'
)
