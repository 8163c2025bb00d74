# SPDX-License-Identifier: Apache-2.0
"""COCO archives from toolbox output on real annotations: written, checked, broken, scored."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from uniformer_mm.submission.check import check_file
from uniformer_mm.submission.coco.check import CATEGORY_IDS
from uniformer_mm.submission.coco.score import BOX_METRICS, KEYPOINT_METRICS, score_coco
from uniformer_mm.submission.coco.write import write_coco
from uniformer_mm.submission.official import read_coco_images

from .conftest import detections, poses, write_json

TASKS = ('coco-det', 'coco-segm', 'coco-keypoints')
NAMES = {
    'coco-det': 'detections_test-dev2017_UniFormerB_results',
    'coco-segm': 'detections_test-dev2017_UniFormerB_results',
    'coco-keypoints': 'person_keypoints_test-dev2017_UniFormerB_results',
}


@pytest.fixture(scope='module')
def entries(instances: Path, persons: Path) -> dict[str, list[dict]]:
    return {
        'coco-det': detections(instances, masks=False),
        'coco-segm': detections(instances, masks=True),
        'coco-keypoints': poses(persons),
    }


@pytest.fixture(scope='module')
def lists(instances: Path, persons: Path) -> dict[str, Path]:
    return {'coco-det': instances, 'coco-segm': instances, 'coco-keypoints': persons}


@pytest.mark.parametrize('task', TASKS)
def test_the_archive(task, entries, lists, tmp_path):
    source = write_json(tmp_path / 'P.json', entries[task])
    images = read_coco_images(lists[task])
    target, _ = write_coco(source, task, images, tmp_path / 'out', algorithm='UniFormerB')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [f'{NAMES[task]}.zip']
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == [f'{NAMES[task]}.json']
        written = json.loads(archive.read(f'{NAMES[task]}.json'))
    assert len(written) == len(entries[task])
    for new, old in zip(written, entries[task], strict=True):
        assert (new['image_id'], new['score']) == (old['image_id'], old['score'])
        assert new['category_id'] == old['category_id'] and new['category_id'] in CATEGORY_IDS
        if task == 'coco-det':
            assert new.keys() == {'image_id', 'category_id', 'bbox', 'score'}
            assert new['bbox'] == [round(value, 1) for value in old['bbox']]
        elif task == 'coco-segm':
            assert new.keys() == {'image_id', 'category_id', 'segmentation', 'score'}
            ours, theirs = (mask_api.decode(e['segmentation']) for e in (new, old))
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert new.keys() == {'image_id', 'category_id', 'keypoints', 'score'}
            assert new['keypoints'][2::3] == [1] * 17
            assert all(isinstance(value, int) for value in new['keypoints'])
            error = np.abs(np.subtract(new['keypoints'], old['keypoints'])).reshape(17, 3)
            assert error[:, :2].max() <= 0.5
    found, issues = check_file(target, ids=lists[task])
    assert (found, issues.lines()) == (task, [])


def test_equal_predictions_make_equal_archives(entries, instances, tmp_path):
    source = write_json(tmp_path / 'P.json', entries['coco-det'])
    images = read_coco_images(instances)
    first, _ = write_coco(source, 'coco-det', images, tmp_path / 'a', algorithm='X')
    second, _ = write_coco(source, 'coco-det', images, tmp_path / 'b', algorithm='X')
    assert first.read_bytes() == second.read_bytes()


def test_categories_are_those_of_the_real_list(instances):
    assert set(read_coco_images(instances).categories) == CATEGORY_IDS


def broken(entry: dict, **change: object) -> dict:
    return copy.deepcopy(entry) | change


DET_FAULTS = [
    ({'image_id': 1}, r'image not in the official list', r'image_id 1 is not among the 60'),
    ({'image_id': '139'}, 'image_id is no integer', "'139', expected an integer"),
    ({'image_id': True}, 'image_id is no integer', 'True, expected an integer'),
    ({'category_id': 0}, 'unknown category_id', '0, .*class indices must be turned'),
    ({'category_id': 12}, 'unknown category_id', '12, .*class indices must be turned'),
    ({'category_id': 91}, 'unknown category_id', '91, expected one of the 80 ids'),
    ({'score': 1.5}, 'score out of range', 'score 1.5, expected a number from 0 to 1'),
    ({'score': -0.1}, 'score out of range', 'score -0.1'),
    ({'score': '0.5'}, 'score out of range', "score '0.5'"),
    ({'score': True}, 'score out of range', 'score True'),
    ({'image_id': [1]}, 'image_id is no integer', r'\[1\], expected an integer'),
    ({'image_id': {}}, 'image_id is no integer', r'\{\}, expected an integer'),
    ({'category_id': [1]}, 'unknown category_id', r'\[1\], expected one of the 80 ids'),
    ({'category_id': {}}, 'unknown category_id', r'\{\}, expected one of the 80 ids'),
    ({'score': [1]}, 'score out of range', r'score \[1\]'),
    ({'score': {}}, 'score out of range', r'score \{\}'),
    ({'bbox': [1, 2, 3]}, 'bad box', 'four finite numbers'),
    ({'bbox': 'left'}, 'bad box', 'four finite numbers'),
    ({'bbox': [1, 2, -3, 4]}, 'bad box', 'a negative side'),
    ({'bbox': [-1, 2, 3, 4]}, 'box outside its image', 'starts outside'),
    ({'bbox': [1, 2, 2000, 4]}, 'box outside its image', r'ends at \(2001.0, 6.0\), the image has'),
]


@pytest.mark.parametrize(('change', 'title', 'message'), DET_FAULTS)
def test_a_broken_box_is_found_and_refused(change, title, message, entries, instances, tmp_path):
    items = [*entries['coco-det'][:5], broken(entries['coco-det'][5], **change)]
    source = write_json(tmp_path / 'P.json', items)
    with pytest.raises(ValueError, match=rf'{title} \(1\): entry 5 .*{message}'):
        write_coco(source, 'coco-det', read_coco_images(instances), tmp_path / 'out', algorithm='X')
    assert list((tmp_path / 'out').iterdir()) == []
    name = write_json(tmp_path / 'detections_val2017_X_results.json', items)
    _, issues = check_file(name, ids=instances)
    assert list(issues.kinds) == [title]
    assert issues.kinds[title].examples[0].startswith('entry 5 (image ')


@pytest.mark.parametrize(
    ('task', 'change', 'title', 'message'),
    [
        ('coco-segm', {'segmentation': [[1, 2, 3, 4, 5, 6]]}, 'bad mask', 'size and counts'),
        ('coco-segm', {'segmentation': {'size': [4, 4], 'counts': '04L4'}}, 'bad mask', 'has '),
        ('coco-segm', {'bbox': [0, 0, 1, 1]}, 'box beside a mask', 'scorers take the area'),
        ('coco-keypoints', {'keypoints': [0] * 34}, 'wrong number of keypoint values', '34, ex'),
        ('coco-keypoints', {'keypoints': [0.5] * 51}, 'bad keypoint', 'v is 0.5, expected'),
        ('coco-keypoints', {'keypoints': [None] * 51}, 'bad keypoint', 'value 0 is None'),
        ('coco-keypoints', {'keypoints': [9e3, 1, 1] * 17}, 'keypoints far outside', 'x from'),
        ('coco-keypoints', {'keypoints': [1, -9e3, 1] * 17}, 'keypoints far outside', 'y from'),
        ('coco-keypoints', {'category_id': 2}, 'unknown category_id', r'2, expected 1 \(person\)'),
        ('coco-keypoints', {'bbox': [0, 0, 1, 1]}, 'box beside keypoints', 'leave bbox out'),
    ],
)
def test_other_faults(task, change, title, message, entries, lists, tmp_path):
    source = write_json(tmp_path / 'P.json', entries[task])
    target, _ = write_coco(
        source, task, read_coco_images(lists[task]), tmp_path, algorithm='X', test_set='val2017'
    )
    with zipfile.ZipFile(target) as archive:
        items = json.loads(archive.read(f'{target.stem}.json'))
    items[7].update(change)
    path = write_json(tmp_path / f'{target.stem}.json', items)
    _, issues = check_file(path, ids=lists[task])
    (kind,) = issues.kinds.values()
    assert kind.title.startswith(title) and kind.count == 1
    with pytest.raises(ValueError, match=f'entry 7 .*{message}'):
        issues.refuse('')


def test_the_same_result_twice(entries, instances, tmp_path):
    items = entries['coco-det'][:4]
    path = write_json(tmp_path / 'detections_val2017_X_results.json', [*items, items[2]])
    _, issues = check_file(path, ids=instances)
    assert issues.lines()[0] == 'result twice: 1'
    assert issues.lines()[1].startswith('  entry 4 ')
    images = read_coco_images(instances)
    target, issues = write_coco(path, 'coco-det', images, tmp_path, algorithm='X')
    assert '1 results were there twice and are written once' in issues.notes
    with zipfile.ZipFile(target) as archive:
        assert len(json.loads(archive.read(f'{target.stem}.json'))) == 4


def test_all_faults_are_counted_and_few_shown(entries, instances, tmp_path):
    items = [broken(entry, image_id=1) for entry in entries['coco-det']]
    items[-1] = broken(items[-1], image_id=entries['coco-det'][-1]['image_id'], score=7)
    path = write_json(tmp_path / 'detections_val2017_X_results.json', items)
    _, issues = check_file(path, ids=instances)
    assert issues.count == len(items)
    assert issues.kinds['score out of range'].count == 1
    assert f'  ... and {len(items) - 1 - 5} more' in issues.lines()
    assert len(issues.lines()) == 1 + 5 + 1 + 2


@pytest.mark.parametrize('content', ['[]', '{"a": 1}', '[1]', '[{"image_id": 1}]'])
def test_empty_and_foreign_content(content, instances, tmp_path):
    source = tmp_path / 'P.json'
    source.write_text(content)
    expected = {'[]': 'no results at all', '{"a": 1}': 'expected a list'}.get(content, 'expected')
    with pytest.raises(ValueError, match=expected):
        write_coco(source, 'coco-det', read_coco_images(instances), tmp_path, algorithm='X')
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ('archive', 'member', 'extra', 'message'),
    [
        ('detections_test-dev2017_X_results', 'results.json', None, 'at the root'),
        (
            'detections_test-dev2017_X_results',
            'd/detections_test-dev2017_X_results.json',
            None,
            'a',
        ),
        ('detections_test-dev2017_X_results', None, 'README', 'does not belong there'),
        ('detections_testdev_X_results', None, None, 'TESTSET one of'),
        ('detections_test-dev2017_my_net_results', None, None, 'without "_" and spaces'),
        ('person_keypoints_val2017_X_results', None, None, 'expected detections_TESTSET'),
    ],
)
def test_names_and_layout(archive, member, extra, message, entries, instances, tmp_path):
    path = tmp_path / f'{archive}.zip'
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr(member or f'{archive}.json', json.dumps(entries['coco-det']))
        if extra:
            file.writestr(extra, 'text')
    _, issues = check_file(path, ids=instances, task='coco-det')
    assert issues.count == 1
    with pytest.raises(ValueError, match=message):
        issues.refuse('')


@pytest.mark.parametrize(
    ('name', 'task'),
    [('detections_val2017_X', 'coco-det'), ('person_keypoints_val2017_X', 'coco-keypoints')],
)
def test_a_file_without_results(name, task, tmp_path):
    found, issues = check_file(write_json(tmp_path / f'{name}_results.json', []))
    assert (found, issues.lines()) == (task, ['empty: 1', '  no results at all'])


def test_a_key_twice_in_one_entry(entries, instances, tmp_path):
    path = tmp_path / 'detections_val2017_X_results.json'
    text = json.dumps(entries['coco-det'][:2])
    path.write_text(text.replace('"score"', '"score": 0.25, "score"', 1))
    with pytest.raises(ValueError, match=r"results.json: key 'score' is there twice in one object"):
        check_file(path, ids=instances)
    with pytest.raises(ValueError, match="key 'score' is there twice"):
        write_coco(path, 'coco-det', read_coco_images(instances), tmp_path / 'out', algorithm='X')


def test_without_a_list_ids_are_not_compared(entries, tmp_path):
    path = write_json(tmp_path / 'detections_val2017_X_results.json', entries['coco-det'])
    _, issues = check_file(path)
    assert (issues.count, issues.unchecked) == (0, 'ids and boxes')


def direct(annotations: Path, items: list[dict], kind: str) -> np.ndarray:
    """pycocotools itself, on results without boxes beside masks and keypoints."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(items)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def without_boxes(items: list[dict], task: str) -> list[dict]:
    if task == 'coco-det':
        return items
    return [{key: value for key, value in item.items() if key != 'bbox'} for item in items]


@pytest.mark.parametrize(
    ('task', 'kind', 'names'),
    [
        ('coco-det', 'bbox', BOX_METRICS),
        ('coco-segm', 'segm', BOX_METRICS),
        ('coco-keypoints', 'keypoints', KEYPOINT_METRICS),
    ],
)
def test_scores_are_pycocotools(task, kind, names, entries, lists, tmp_path):
    source = write_json(tmp_path / 'P.json', entries[task])
    metrics, _ = score_coco(source, task, lists[task])
    expected = direct(lists[task], without_boxes(entries[task], task), kind)
    assert list(metrics) == list(names)
    for name, value in zip(names, expected[: len(names)], strict=True):
        assert metrics[name] == (value * 100 if value >= 0 else -1), name
    assert 20 < metrics['AP'] < 95


def test_areas_come_from_the_masks(entries, instances, tmp_path):
    """With mmdet's boxes left in, COCO's code sorts masks into sizes by their boxes."""
    source = write_json(tmp_path / 'P.json', entries['coco-segm'])
    metrics, _ = score_coco(source, 'coco-segm', instances)
    left_in = direct(instances, entries['coco-segm'], 'segm')
    assert metrics['APs'] != pytest.approx(left_in[BOX_METRICS.index('APs')] * 100, abs=0.01)


@pytest.mark.parametrize('task', TASKS)
def test_the_fast_engine_gives_the_same_numbers(task, entries, lists, tmp_path):
    pytest.importorskip('faster_coco_eval', reason='faster-coco-eval is not installed (optional)')
    source = write_json(tmp_path / 'P.json', entries[task])
    fast, _ = score_coco(source, task, lists[task], engine='faster')
    slow, _ = score_coco(source, task, lists[task])
    # The last bit of a mean differs: the library adds in another order.
    assert fast == pytest.approx(slow, rel=0, abs=1e-9) and 20 < slow['AP'] < 95


def test_a_perfect_result_scores_100(instances, tmp_path):
    truth = json.loads(instances.read_text())['annotations']
    items = [
        {key: item[key] for key in ('image_id', 'category_id', 'bbox')} | {'score': 0.9}
        for item in truth
        if not item['iscrowd']
    ]
    metrics, _ = score_coco(write_json(tmp_path / 'P.json', items), 'coco-det', instances)
    assert metrics['AP'] == pytest.approx(100) and metrics['AP50'] == pytest.approx(100)


def test_scores_of_other_images_and_without_annotations(entries, instances, persons, tmp_path):
    source = write_json(tmp_path / 'P.json', entries['coco-det'])
    with pytest.raises(ValueError, match=r'image not in the official list .*Nothing was scored'):
        score_coco(source, 'coco-det', persons)
    content = json.loads(instances.read_text())
    del content['annotations']
    info = write_json(tmp_path / 'image_info.json', content)
    with pytest.raises(ValueError, match=r'image_info.json: has no bbox to score against'):
        score_coco(source, 'coco-det', info)
    with pytest.raises(ValueError, match=r"engine='quick': expected one of pycocotools, faster"):
        score_coco(source, 'coco-det', instances, engine='quick')
