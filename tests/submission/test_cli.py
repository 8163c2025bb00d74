# SPDX-License-Identifier: Apache-2.0
"""``uniformer-mm submit`` and ``uniformer-mm score``, from saved predictions to verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from uniformer_mm.submission.check import TASKS
from uniformer_mm.submission.servers import servers
from uniformer_mm.submission.usual_lists import usual_list

from ..conftest import ROOT
from .conftest import detections, poses, write_json


def test_every_task_has_a_server_with_a_date():
    assert set(servers()) == set(TASKS)
    for server in servers().values():
        assert re.fullmatch(r'20\d\d-\d\d', server.as_of)
        assert server.state and server.source
        assert any('no server has accepted' in line for line in server.lines())


def test_the_rules_of_the_servers_are_printed():
    for task in ('coco-det', 'coco-segm', 'coco-keypoints'):
        lines = ' '.join(servers()[task].lines())
        for rule in ('5 a day', 'one public entry', 'one account', 'external data', 'training on'):
            assert rule in lines
    ade20k = servers()['ade20k']
    assert 'Robust Vision Challenge worked in 2022-09' in ade20k.state
    assert 'rvc_devkit issue 62' in ade20k.source


def says_the_server(text: str, task: str) -> bool:
    server = servers()[task]
    return f'as of {server.as_of}: {server.state}' in text and 'no server has accepted' in text


@pytest.mark.parametrize('task', ['coco-det', 'coco-segm', 'coco-keypoints'])
def test_coco_there_and_back(task, run, instances, persons, tmp_path):
    truth = persons if task == 'coco-keypoints' else instances
    items = poses(truth) if 'key' in task else detections(truth, masks=task == 'coco-segm')
    source = write_json(tmp_path / 'P.json', items[:200])
    options = ('--ids', truth, '--name', 'X', '--output', tmp_path, '--test-set', 'val2017')
    status, text = run('submit', task, source, *options)
    (target,) = tmp_path.glob('*.zip')
    assert status == 0 and f'written {target}' in text and says_the_server(text, task)
    status, text = run('submit', '--check', target, '--ids', truth)
    assert status == 0 and f'({task}): nothing wrong was found' in text
    assert says_the_server(text, task)
    status, text = run('submit', task, source, *options)
    assert status == 2 and 'exists; pass --overwrite' in text
    status, text = run('submit', task, source, *options, '--overwrite', '--decimals', 2)
    assert status == 0


def test_check_says_what_is_wrong_where(run, instances, tmp_path):
    items = detections(instances, masks=False)
    items[17]['score'] = 1.25
    items[18]['image_id'] = 42
    path = write_json(tmp_path / 'detections_test-dev2017_X_results.json', items)
    status, text = run('submit', '--check', path, '--ids', instances)
    assert status == 1
    image = items[17]['image_id']
    assert f'  entry 17 (image {image}): score 1.25, expected a number from 0 to 1' in text
    assert '  entry 18 (image 42): image_id 42 is not among the 60' in text
    assert '(coco-det): 2 issues' in text


FOREIGN = {'image_id': 42, 'category_id': 1, 'bbox': [0, 0, 5000, 5000], 'score': 0.5}


def test_what_was_not_checked_is_in_the_verdict(run, tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path / 'nothing-there'))
    path = write_json(tmp_path / 'detections_val2017_X_results.json', [FOREIGN])
    status, text = run('submit', '--check', path)
    assert status == 0
    verdict = 'nothing wrong was found; ids and boxes NOT checked (no --ids)'
    assert f'{path} (coco-det): {verdict}\n' in text
    write_json(path, [FOREIGN | {'score': 2}])
    status, text = run('submit', '--check', path)
    assert status == 1 and '(coco-det): 1 issues; ids and boxes NOT checked (no --ids)\n' in text
    (tmp_path / 's.csv').write_text('1;1;2;3;4;5\n')
    status, text = run('submit', '--check', tmp_path / 's.csv')
    assert status == 0 and 'nothing wrong was found; ids NOT checked (no --ids)\n' in text


def test_the_list_in_its_usual_place_is_used(run, instances, persons, ade, tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path))
    annotations = tmp_path / 'coco/annotations'
    annotations.mkdir(parents=True)
    for source in (instances, persons):
        (annotations / source.name).symlink_to(source)
    path = write_json(tmp_path / 'detections_val2017_X_results.json', [FOREIGN])
    status, text = run('submit', '--check', path)
    assert status == 1 and 'image_id 42 is not among the 60 of' in text and '2 issues' not in text
    assert f'its usual place: {annotations / instances.name}' in text and 'NOT' not in text
    items = [{k: v for k, v in item.items() if k != 'bbox'} for item in poses(persons)]
    for item in items:
        item['keypoints'][2::3] = [1] * 17
    path = write_json(tmp_path / 'person_keypoints_val2017_X_results.json', items)
    status, text = run('submit', '--check', path)
    assert status == 0 and f'its usual place: {annotations / persons.name}' in text
    # An explicit list comes first.
    status, text = run('submit', '--check', path, '--ids', instances)
    assert status == 1 and 'is not among the 60' in text

    (tmp_path / 'ade').mkdir()
    (tmp_path / 'ade/ADEChallengeData2016').symlink_to(ade.resolve())
    (tmp_path / 'maps').mkdir()
    shape = Image.open(ade / 'images/validation/ADE_val_00000001.jpg').size[::-1]
    Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / 'maps/ADE_val_00000001.png')
    status, text = run('submit', '--check', tmp_path / 'maps')
    assert status == 1 and 'image missing: 2' in text

    for folder, task, name in (
        ('sthv2/sthv2_test_list_rawframes.txt', 'ssv2', 's.csv'),
        ('kinetics400/kinetics400_test_list_videos.txt', 'kinetics', 'kinetics400_X_results.json'),
    ):
        (tmp_path / folder).parent.mkdir()
        (tmp_path / folder).write_text('8.mp4\n')
        (tmp_path / 's.csv').write_text('7;1;2;3;4;5\n')
        labels = ('abseiling', 'zumba', 'yoga', 'archery', 'bowling')
        write_json(
            tmp_path / 'kinetics400_X_results.json',
            {
                'version': 'KINETICS VERSION 1.0',
                'external_data': {'used': False, 'details': ''},
                'results': {'7': [{'label': label, 'score': 0.5} for label in labels]},
            },
        )
        status, text = run('submit', '--check', tmp_path / name)
        assert status == 1 and f'({task}): 2 issues' in text
        assert "video not in the official list: 1\n  '7'" in text


@pytest.mark.parametrize(
    ('kind', 'overlay', 'name'),
    [
        ('coco', 'coco_test_dev', 'detections_test-dev2017_X_results.zip'),
        ('coco', 'coco_keypoints_test_dev', 'person_keypoints_test-dev2017_X_results.zip'),
        ('ade20k', 'ade20k_test', 'maps'),
        ('kinetics', 'kinetics400_test', 'kinetics400_X_results.json'),
        ('kinetics', 'kinetics600_test', 'kinetics600_X_results.json'),
        ('ssv2', 'ssv2_test', 'any.csv'),
    ],
)
def test_the_usual_places_are_those_of_the_test_runs(kind, overlay, name, tmp_path, monkeypatch):
    monkeypatch.setenv('UNIFORMER_DATA', str(tmp_path))
    config = Config.fromfile(ROOT / f'configs/_base_/submission/{overlay}.py')
    tested = config.submission_set
    if kind == 'ade20k':
        expected = Path(tested.data_root, tested.data_prefix['img_path'])
        (tmp_path / name).mkdir()
        (tmp_path / name / 'ADE_test_00000001.png').touch()
    else:
        expected = Path(config.submission_evaluator.get('ann_file', tested.get('ann_file')))
    assert usual_list(tmp_path / name, kind, tmp_path) is None
    expected.parent.mkdir(parents=True, exist_ok=True)
    expected.touch()
    assert usual_list(tmp_path / name, kind, tmp_path) == expected


def test_scores_are_printed(run, instances, tmp_path):
    source = write_json(tmp_path / 'P.json', detections(instances, masks=False))
    status, text = run('score', 'coco-det', source, '--annotations', instances)
    assert status == 0 and re.search(r'^AP75 +\d+\.\d\d$', text, re.MULTILINE)


def test_ade20k(run, ade, tmp_path):
    (tmp_path / 'P').mkdir()
    for path in (ade / 'annotations' / 'validation').iterdir():
        labels = np.maximum(np.asarray(Image.open(path)), 1)
        Image.fromarray(labels - 1).save(tmp_path / 'P' / path.name)
    options = ('--ids', ade / 'images' / 'validation', '--name', 'X', '--output', tmp_path)
    status, text = run('submit', 'ade20k', tmp_path / 'P', *options)
    assert status == 2 and 'label out of range (3): ADE_val_00000001.png: values 0 to' in text
    status, text = run('submit', 'ade20k', tmp_path / 'P', *options, '--add-one')
    assert status == 0 and says_the_server(text, 'ade20k')
    archive = tmp_path / 'ade20k_X_results.zip'
    truth = ade / 'annotations' / 'validation'
    status, text = run('score', 'ade20k', archive, '--annotations', truth)
    assert status == 0 and re.search(r'^score +100\.00$', text, re.MULTILINE)
    assert re.search(r'^images +3$', text, re.MULTILINE)


def test_kinetics_and_ssv2(run, tmp_path):
    rng = np.random.default_rng(0)
    ids = [f'{n:011}' for n in range(6)]
    (tmp_path / 'ids.txt').write_text('\n'.join(f'{name} 0' for name in ids))
    np.savez(tmp_path / 'k.npz', ids=ids, scores=rng.random((6, 400)))
    np.savez(tmp_path / 's.npz', ids=ids, scores=rng.random((6, 174)))
    options = ('--ids', tmp_path / 'ids.txt', '--name', 'X', '--output', tmp_path)
    order = ('--class-order', 'kinetics400_alphabetical')
    external = ('--external-data', 'ImageNet-1K labels')
    status, text = run('submit', 'kinetics', tmp_path / 'k.npz', *options, *external)
    assert status == 2 and 'pass --class-order' in text
    status, text = run('submit', 'kinetics', tmp_path / 'k.npz', *options, *order, *external)
    assert status == 0 and says_the_server(text, 'kinetics')
    content = json.loads((tmp_path / 'kinetics400_X_results.json').read_text())
    assert content['external_data'] == {'used': True, 'details': 'ImageNet-1K labels'}
    with pytest.raises(SystemExit):
        run('submit', 'kinetics', tmp_path / 'k.npz', *options, *order)
    status, text = run('submit', 'ssv2', tmp_path / 's.npz', *options)
    assert status == 0 and says_the_server(text, 'ssv2')
    status, text = run('submit', 'ssv2', tmp_path / 'k.npz', *options, '--overwrite')
    assert status == 2 and '400 scores for each video, but Something-Something V2 has 174' in text
    truth = ('--annotations', tmp_path / 'ids.txt')
    for task, extra in (('kinetics', order), ('ssv2', ())):
        status, text = run('score', task, tmp_path / f'{task[0]}.npz', *truth, *extra)
        assert status == 0 and re.search(r'^mean_error +\d+\.\d\d$', text, re.MULTILINE)


def test_mistakes_are_one_line(run, tmp_path):
    status, text = run('submit')
    assert status == 2 and 'name a task (coco-det, ' in text and '--check FILE' in text
    for name in ('absent.zip', 'absent', 'absent.json'):
        status, text = run('submit', '--check', tmp_path / name)
        assert status == 2 and f'{name}: no such file or folder.' in text
    (tmp_path / 'x.txt').touch()
    status, text = run('submit', '--check', tmp_path / 'x.txt')
    assert status == 2 and 'x.txt: leaderboard files end in .zip, .json or .csv' in text
    with pytest.raises(SystemExit):
        run('score')
