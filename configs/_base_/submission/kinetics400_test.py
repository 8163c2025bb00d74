# SPDX-License-Identifier: Apache-2.0
"""Kinetics-400 test videos: scores are written instead of compared.

The list has "name.mp4" lines, without labels. Data root: the environment variable UNIFORMER_DATA,
else ``data/`` in the working directory.
"""

submission_set = dict(
    ann_file='{{$UNIFORMER_DATA:data}}/kinetics400/kinetics400_test_list_videos.txt',
    data_prefix=dict(video='{{$UNIFORMER_DATA:data}}/kinetics400/videos_test'),
)
submission_evaluator = dict(
    _delete_=True, type='DumpResults', out_file_path='work_dirs/submission/kinetics400.pkl'
)
