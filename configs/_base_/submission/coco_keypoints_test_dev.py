# SPDX-License-Identifier: Apache-2.0
"""COCO test-dev2017 for mmpose: a detector's persons, results are written instead of scored.

Written is ``PREFIX.keypoints.json``. The boxes are the usual ones of a detector with person
AP 60.9. Data root: the environment variable UNIFORMER_DATA, else ``data/`` in the working
directory.
"""

submission_set = dict(
    ann_file='annotations/image_info_test-dev2017.json',
    bbox_file='{{$UNIFORMER_DATA:data}}/coco/person_detection_results/'
    'COCO_test-dev2017_detections_AP_H_609_person.json',
    data_prefix=dict(img='test2017/'),
)
submission_evaluator = dict(
    ann_file='{{$UNIFORMER_DATA:data}}/coco/' + submission_set['ann_file'],
    format_only=True,
    outfile_prefix='work_dirs/submission/coco_test_dev',
)
