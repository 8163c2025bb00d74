# SPDX-License-Identifier: Apache-2.0
"""Kinetics and Something-Something: scores read, files written, checked, broken, scored."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from uniformer_mm.labels import class_names
from uniformer_mm.submission.check import check_file
from uniformer_mm.submission.official import read_videos, video_id
from uniformer_mm.submission.video.kinetics import write_kinetics
from uniformer_mm.submission.video.predictions import VideoScores, read_video_scores
from uniformer_mm.submission.video.score import score_kinetics, score_ssv2
from uniformer_mm.submission.video.ssv2 import write_ssv2

from ..conftest import shared_dir
from .conftest import write_json

OFFICIAL, ALPHABETICAL = 'kinetics400_official', 'kinetics400_alphabetical'
VIDEOS = 40


def youtube_ids(count: int) -> list[str]:
    """Ids of 11 characters, some with the dashes and underscores that real ones have."""
    return [f'{"-_aZ"[n % 4]}{n:09}x' for n in range(count)]


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (VIDEOS, 400))


def save_pickle(path: Path, scores: np.ndarray, labels, names=None, key='filename') -> Path:
    """What mmengine's DumpResults writes for mmaction2: dictionaries of tensors."""
    samples = []
    for index, row in enumerate(scores):
        sample = {
            'pred_score': torch.tensor(row, dtype=torch.float32),
            'pred_label': torch.tensor([int(row.argmax())]),
            'gt_label': torch.tensor([labels[index]]),
            'num_classes': len(row),
            'img_shape': (224, 224),
        }
        if names is not None:
            sample[key] = names[index]
        samples.append(sample)
    path.write_bytes(pickle.dumps(samples))
    return path


# Reading.


def test_three_forms_of_the_same_scores(logits, tmp_path):
    ids = youtube_ids(VIDEOS)
    files = [f'videos_val/{name}_000010_000020.mp4' for name in ids]
    single = logits.astype(np.float32)
    pkl = save_pickle(tmp_path / 's.pkl', single, [-1] * VIDEOS, files)
    np.savez(tmp_path / 's.npz', ids=np.array(ids), scores=single, class_order=OFFICIAL)
    content = {'scores': dict(zip(ids, single.tolist(), strict=True))}
    found = [
        read_video_scores(pkl),
        read_video_scores(tmp_path / 's.npz'),
        read_video_scores(write_json(tmp_path / 's.json', content)),
    ]
    for scores in found:
        assert list(scores.ids) == ids
        np.testing.assert_array_equal(scores.scores, single)
    assert [scores.class_order for scores in found] == [None, OFFICIAL, None]


def test_a_dump_of_mmaction2_itself(tmp_path):
    """DumpResults on ActionDataSample, the only objects that it meets."""
    metric = pytest.importorskip('mmengine.evaluator').DumpResults(str(tmp_path / 's.pkl'))
    sample_class = pytest.importorskip('mmaction.structures').ActionDataSample
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 174)).astype(np.float32)
    for name, row in zip(('1420', '7', '8'), rows, strict=True):
        sample = sample_class(metainfo={'img_shape': (224, 224), 'frame_dir': f'frames/{name}'})
        sample.set_gt_label(3).set_pred_score(torch.tensor(row)).set_pred_label(int(row.argmax()))
        metric.process({}, [sample.to_dict()])
    metric.compute_metrics(metric.results)
    scores = read_video_scores(tmp_path / 's.pkl')
    assert (scores.ids, scores.labels) == (('1420', '7', '8'), (3, 3, 3))
    np.testing.assert_array_equal(scores.scores, rows)
    listed = tmp_path / 'list.txt'
    listed.write_text('1420 40 3\n7 30 3\n9 30 3\n')
    with pytest.raises(ValueError, match=r"sample 2 is 'frames/8', but .* has '9' there"):
        read_video_scores(tmp_path / 's.pkl', order_file=listed)


def test_a_pickle_without_names_needs_the_list(logits, tmp_path):
    path = save_pickle(tmp_path / 's.pkl', logits, list(range(VIDEOS)))
    with pytest.raises(ValueError, match=r'do not say which video .*--tested-list'):
        read_video_scores(path)
    ids = youtube_ids(VIDEOS)
    lines = [f'class/{name}_000001_000011.mp4 {label}' for label, name in enumerate(ids)]
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    scores = read_video_scores(path, order_file=tmp_path / 'list.txt')
    assert list(scores.ids) == ids
    (tmp_path / 'list.txt').write_text('\n'.join([*lines[1:], lines[0]]))
    with pytest.raises(ValueError, match=r'sample 0 has label 0, .* has 1 there; it is not the li'):
        read_video_scores(path, order_file=tmp_path / 'list.txt')
    (tmp_path / 'list.txt').write_text('\n'.join(lines[1:]))
    with pytest.raises(ValueError, match=r'40 samples, but .*list.txt lists 39 videos'):
        read_video_scores(path, order_file=tmp_path / 'list.txt')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'scores': {}}, r'0 videos and scores of shape \[0\]'),
        ({'scores': {'a': [1, 2], 'b': [1]}}, r'the same number of scores, found \[1, 2\]'),
        ({'scores': {'a': 1}}, 'the same number of scores'),
        ({'scores': {'a': [1, 'x']}}, 'a score is no number'),
        ({'scores': {'a': [1, 1e999]}}, "video 'a': score of class 1 is inf"),
        ({'scores': {'a.mp4': [1], 'a': [1]}}, "video 'a' has scores twice"),
        ({'scores': {'a': [1]}, 'class_order': 3}, 'class_order is 3, expected text'),
        ([1], r'expected \{"scores"'),
    ],
)
def test_bad_json_scores(content, message, tmp_path):
    path = tmp_path / 's.json'
    path.write_text(json.dumps(content).replace('Infinity', '1e999'))
    with pytest.raises(ValueError, match=message):
        read_video_scores(path)


def test_bad_arrays(tmp_path):
    path = tmp_path / 's.npz'
    np.savez(path, ids=np.array(['a'], dtype=object), scores=np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r'expected arrays ids \(text\) and scores .*no objects'):
        read_video_scores(path)
    np.savez(path, scores=np.zeros((1, 3)))
    with pytest.raises(ValueError, match='expected arrays ids'):
        read_video_scores(path)
    np.savez(path, ids=np.zeros(1), scores=np.zeros((1, 3)))
    with pytest.raises(ValueError, match='ids float64'):
        read_video_scores(path)
    np.savez(path, ids=np.array(['a', 'b']), scores=np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r'2 videos and scores of shape \[1, 3\]'):
        read_video_scores(path)
    with pytest.raises(ValueError, match='scores are read from'):
        read_video_scores(tmp_path / 's.txt')


def test_lists(tmp_path):
    path = tmp_path / 'list'
    rows = [['label', 'youtube_id', 'time_start', 'time_end', 'split']]
    rows += [['petting animal (not cat)', 'a-b_cDEFG12', '10', '20', 'val']]
    with path.open('w', newline='') as file:
        csv.writer(file).writerows(rows)
    assert read_videos(path) == {'a-b_cDEFG12': 'petting animal (not cat)'}
    path.write_text('youtube_id,time_start,time_end,split\nX,1,2,test\n')
    assert read_videos(path) == {'X': None}
    path.write_text('{"X": {"annotations": {"label": "ski jumping"}}, "Y": {"subset": "test"}}')
    assert read_videos(path) == {'X': 'ski jumping', 'Y': None}
    path.write_text('[{"id": "1"}, {"id": 2, "template": "Closing [something]"}]')
    assert read_videos(path) == {'1': None, '2': 'Closing [something]'}
    path.write_text('7;Pretending to put something, really\n8;Closing something\n')
    assert read_videos(path) == {
        '7': 'Pretending to put something, really',
        '8': 'Closing something',
    }
    path.write_text('riding a bike/a-b_cDEFG12_000001_000011.mp4,5\n')
    assert read_videos(path) == {'a-b_cDEFG12': '5'}
    path.write_text('7 40 3\n\n8 41 3\n')
    assert read_videos(path) == {'7': '3', '8': '3'}
    path.write_text('7\n8\n7\n')
    with pytest.raises(ValueError, match="video '7' is listed twice"):
        read_videos(path)
    path.write_text('')
    with pytest.raises(ValueError, match='lists no videos'):
        read_videos(path)
    path.write_text('[3]')
    with pytest.raises(ValueError, match='no list of videos; expected objects by id'):
        read_videos(path)


def test_real_file_names():
    folder = shared_dir('data', 'clips', 'videos')
    assert {video_id(str(path)) for path in folder.glob('?6*.mp4')} == {'R6llTwEh07w'}
    assert video_id('/k400/abseiling/-0Zv5b_aBcD_000010_000020.mp4') == '-0Zv5b_aBcD'
    assert video_id('rawframes/1420/') == '1420'


# Kinetics.


def kinetics(logits: np.ndarray, **options) -> VideoScores:
    return VideoScores('scores.npz', tuple(youtube_ids(len(logits))), logits, **options)


def write(scores: VideoScores, tmp_path: Path, order: str = OFFICIAL, **options) -> Path:
    options = {'external_data': 'ImageNet-1K', 'algorithm': 'UniFormer_B'} | options
    official = options.pop('official', youtube_ids(VIDEOS))
    return write_kinetics(scores, order, official, tmp_path / 'out', **options)


@pytest.mark.parametrize('order', [OFFICIAL, ALPHABETICAL])
def test_kinetics_file(order, logits, tmp_path):
    target, issues = write(kinetics(logits), tmp_path, order)
    assert target.name == 'kinetics400_UniFormer_B_results.json'
    content = json.loads(target.read_text())
    assert content['version'] == 'KINETICS VERSION 1.0'
    assert content['external_data'] == {'used': True, 'details': 'ImageNet-1K'}
    assert list(content['results']) == youtube_ids(VIDEOS)
    names = class_names(order)
    for row, entries in zip(logits, content['results'].values(), strict=True):
        best = sorted(range(400), key=lambda c: -row[c])[:5]
        assert [entry['label'] for entry in entries] == [names[c] for c in best]
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert [entry['score'] for entry in entries] == pytest.approx(shares[best])
    assert f'classes in the order {order}' in issues.notes
    assert 'scores outside 0..1 were taken for logits and written as their softmax' in issues.notes
    ids = tmp_path / 'test.csv'
    ids.write_text('youtube_id,time_start\n' + '\n'.join(f'{v},0' for v in youtube_ids(VIDEOS)))
    task, issues = check_file(target, ids=ids)
    assert (task, issues.lines()) == ('kinetics', [])


def test_kinetics600_names_have_spaces(tmp_path):
    scores = np.random.default_rng(0).random((2, 600))
    target, _ = write(kinetics(scores), tmp_path, 'kinetics600_official', official=youtube_ids(2))
    assert target.name.startswith('kinetics600_')
    labels = {e['label'] for v in json.loads(target.read_text())['results'].values() for e in v}
    assert not any('_' in label for label in labels)
    assert labels <= {name.replace('_', ' ') for name in class_names('kinetics600_official')}
    assert check_file(target)[1].lines() == []


def test_scores_of_other_classes_and_videos(logits, tmp_path):
    with pytest.raises(ValueError, match='174 scores for each video, but kinetics400 has 400'):
        write(kinetics(logits[:, :174]), tmp_path)
    official = youtube_ids(VIDEOS)
    with pytest.raises(
        ValueError, match=r'1 of 40 videos are not in the official list of 39, t.*0x'
    ):
        write(kinetics(logits), tmp_path, official=official[1:])
    with pytest.raises(ValueError, match=r'2 of 42 listed videos have no scores, .* is .aaa'):
        write(kinetics(logits), tmp_path, official=[*official, 'aaa', 'bbb'])
    assert list((tmp_path / 'out').iterdir()) == []
    target, issues = write(
        kinetics(logits), tmp_path, official=[*official, 'aaa'], allow_missing=True
    )
    assert '1 of 41 videos have no entry: they count as wrong' in issues.notes
    assert len(json.loads(target.read_text())['results']) == VIDEOS


def test_no_external_data(logits, tmp_path):
    target, _ = write(kinetics(logits), tmp_path, external_data=None)
    content = json.loads(target.read_text())
    assert content['external_data'] == {'used': False, 'details': ''}


def drop(key):
    return lambda content: content.pop(key)


def change(rank, **values):
    return lambda content: content['results']['_000000001x'][rank].update(values)


@pytest.mark.parametrize(
    ('damage', 'title', 'message'),
    [
        (drop('version'), 'wrong version', "None, expected 'KINETICS VERSION 1.0'"),
        (drop('external_data'), 'wrong external_data', 'expected {"used"'),
        (drop('results'), 'empty', 'expected entries by video id'),
        (lambda c: c.update(results={}), 'empty', '{}, expected entries by video id'),
        (lambda c: c['external_data'].update(details=' '), 'wrong external_data', 'are empty'),
        (lambda c: c.update(extra=1), 'unknown key', 'extra'),
        (lambda c: c['results'].pop('_000000001x'), 'video missing', '_000000001x'),
        (lambda c: c['results']['_000000001x'].pop(), 'wrong number of labels', '4, expected 5'),
        (change(2, label=17), 'unknown label', 'rank 3: 17 is no class (a name, not an index)'),
        (change(2, label='riding'), 'unknown label', "rank 3: 'riding' is no class"),
        (change(1, score=float('1e400')), None, 'not a JSON number'),
        (change(0, score='1'), 'score out of range', "rank 1: '1', expected a number"),
        (change(4, score=1.0), 'labels not sorted', 'expected the best first'),
        (change(0, extra=1), 'bad label', 'expected label and score'),
    ],
)
def test_broken_kinetics_files(damage, title, message, logits, tmp_path):
    target, _ = write(kinetics(logits), tmp_path)
    content = json.loads(target.read_text())
    damage(content)
    target.write_text(json.dumps(content))
    (tmp_path / 'ids').write_text('\n'.join(youtube_ids(VIDEOS)))
    if title is None:
        with pytest.raises(ValueError, match=message):
            check_file(target, ids=tmp_path / 'ids')
        return
    _, issues = check_file(target, ids=tmp_path / 'ids')
    assert list(issues.kinds) == [title]
    assert message in issues.lines()[1]


def test_a_label_or_video_twice_and_other_videos(logits, tmp_path):
    target, _ = write(kinetics(logits), tmp_path)
    content = json.loads(target.read_text())
    entries = content['results']['_000000001x']
    entries[1]['label'] = entries[0]['label']
    content['results']['other'] = content['results'].pop('Z000000003x')
    target.write_text(json.dumps(content))
    (tmp_path / 'ids').write_text('\n'.join(youtube_ids(VIDEOS)))
    _, issues = check_file(target, ids=tmp_path / 'ids')
    assert set(issues.kinds) == {'label twice', 'video not in the official list', 'video missing'}
    target.write_text('{"version": 1, "version": 1}')
    with pytest.raises(ValueError, match="key 'version' is there twice"):
        check_file(target)


def labelled(tmp_path: Path, order: str | None) -> tuple[np.ndarray, np.ndarray, Path]:
    """Scores whose truth is known: 24 videos on place one, 10 on place five, 6 on place six."""
    rng = np.random.default_rng(1)
    scores = rng.random((VIDEOS, 400)) * 0.5
    truth = rng.permutation(400)[:VIDEOS]
    for index, label in enumerate(truth):
        others = [c for c in rng.permutation(400)[:9] if c != label][:8]
        rank = 0 if index < 24 else 4 if index < 34 else 5
        for place, c in enumerate([*others[:rank], label, *others[rank:]][:8]):
            scores[index, c] = 1 - place / 100
    names = class_names(OFFICIAL)
    path = tmp_path / 'val.csv'
    ids = youtube_ids(VIDEOS)
    if order is None:
        with path.open('w', newline='') as file:
            rows = [
                ('label', 'youtube_id'),
                *((names[c], i) for c, i in zip(truth, ids, strict=True)),
            ]
            csv.writer(file).writerows(rows)
    else:
        position = {name: n for n, name in enumerate(class_names(order))}
        lines = [f'{i}.mp4 {position[names[c]]}' for c, i in zip(truth, ids, strict=True)]
        path.write_text('\n'.join(lines))
    return scores, truth, path


EXPECTED = {'top1': 60.0, 'top5': 85.0, 'mean_error': 27.5, 'videos': 40.0}


@pytest.mark.parametrize('list_order', [None, OFFICIAL, ALPHABETICAL])
def test_kinetics_score(list_order, tmp_path):
    scores, _, annotations = labelled(tmp_path, list_order)
    np.savez(tmp_path / 's.npz', ids=youtube_ids(VIDEOS), scores=scores)
    options = {'class_order': OFFICIAL, 'list_order': list_order}
    metrics, _ = score_kinetics(tmp_path / 's.npz', annotations, **options)
    assert metrics == pytest.approx(EXPECTED)
    target, _ = write(kinetics(scores), tmp_path)
    metrics, _ = score_kinetics(target, annotations, list_order=list_order)
    assert metrics == pytest.approx(EXPECTED)


def test_the_wrong_order_of_classes_is_noticed(tmp_path):
    scores, _, annotations = labelled(tmp_path, None)
    path = tmp_path / 's.npz'
    np.savez(path, ids=youtube_ids(VIDEOS), scores=scores)
    with pytest.raises(ValueError, match=r'does not say which class .*--class-order'):
        score_kinetics(path, annotations)
    message = (
        r'top-1 is 0.00 if .* order kinetics400_alphabetical, but 60.00 in the order kinetics4'
    )
    with pytest.raises(ValueError, match=message + '00_official; pass --class-order'):
        score_kinetics(path, annotations, class_order=ALPHABETICAL)
    np.savez(path, ids=youtube_ids(VIDEOS), scores=scores, class_order=OFFICIAL)
    assert score_kinetics(path, annotations)[0]['top1'] == pytest.approx(60)
    with pytest.raises(ValueError, match='states class_order kinetics400_official, but --class-o'):
        score_kinetics(path, annotations, class_order=ALPHABETICAL)


def test_kinetics_score_of_other_and_missing_videos(tmp_path):
    scores, _, annotations = labelled(tmp_path, None)
    ids = youtube_ids(VIDEOS)
    path = tmp_path / 's.npz'
    np.savez(path, ids=[*ids[:-1], 'unknown-one'], scores=scores, class_order=OFFICIAL)
    with pytest.raises(ValueError, match=r'1 of 40 videos are not in the list of 40, .*own-one'):
        score_kinetics(path, annotations)
    np.savez(path, ids=ids[:30], scores=scores[:30], class_order=OFFICIAL)
    with pytest.raises(ValueError, match='10 of 40 listed videos have no prediction'):
        score_kinetics(path, annotations)
    metrics, issues = score_kinetics(path, annotations, allow_missing=True)
    assert (metrics['top1'], metrics['top5'], metrics['videos']) == (80, 100, 30)
    assert 'counted as wrong: top-1 60.00, top-5 75.00' in issues.notes[0]
    annotations.write_text('label,youtube_id\nsleeping,' + ids[0])
    with pytest.raises(ValueError, match="label 'sleeping', which is no class of kinetics400"):
        score_kinetics(path, annotations)


# Something-Something V2.


@pytest.fixture
def ssv2_scores() -> VideoScores:
    ids = tuple(str(n) for n in range(100, 100 + VIDEOS))
    return VideoScores('s.npz', ids, np.random.default_rng(2).normal(size=(VIDEOS, 174)))


def test_ssv2_file(ssv2_scores, tmp_path):
    official = list(reversed(ssv2_scores.ids))
    target, _ = write_ssv2(ssv2_scores, official, tmp_path, algorithm='S')
    assert target.name == 'ssv2_S_results.csv'
    lines = target.read_text().splitlines()
    assert [line.split(';')[0] for line in lines] == official
    for line, row in zip(lines, ssv2_scores.scores[::-1], strict=True):
        best = sorted(range(174), key=lambda c: -row[c])[:5]
        assert line.split(';')[1:] == [str(c) for c in best]
    ids = write_json(tmp_path / 'test.json', [{'id': name} for name in official])
    assert check_file(target, ids=ids)[1].lines() == []
    with pytest.raises(ValueError, match=r'exists; pass --overwrite'):
        write_ssv2(ssv2_scores, official, tmp_path, algorithm='S')
    with pytest.raises(ValueError, match='1 of 40 videos are not in the official list'):
        write_ssv2(ssv2_scores, official[1:], tmp_path, algorithm='S2')


@pytest.mark.parametrize(
    ('line', 'title', 'message'),
    [
        ('101;1;2;3;4', 'wrong number of classes', "line 2 (video '101'): 4 values after the id"),
        ('101,1,2,3,4,5', 'wrong number of classes', '0 values after the id, expected 5, sep'),
        ('101;1;2;3;4;174', 'bad class index', "'174', expected 0 to 173"),
        ('101;1;2;3;4;-1', 'bad class index', "'-1', expected 0 to 173"),
        ('101;1;2;3;4;Closing', 'bad class index', "'Closing', expected"),
        ('101;1;2;3;4;4', 'class twice', '[1, 2, 3, 4, 4]'),
        ('100;1;2;3;4;5', 'video twice', 'has an earlier line'),
    ],
)
def test_broken_ssv2_files(line, title, message, ssv2_scores, tmp_path):
    target, _ = write_ssv2(ssv2_scores, list(ssv2_scores.ids), tmp_path, algorithm='S')
    lines = target.read_text().splitlines()
    target.write_text('\n'.join([lines[0], line, *lines[2:]]))
    (tmp_path / 'ids').write_text('\n'.join(ssv2_scores.ids))
    _, issues = check_file(target, ids=tmp_path / 'ids')
    assert list(issues.kinds) == [title, 'video missing']
    assert message in issues.lines()[1]


def test_an_empty_ssv2_file(tmp_path):
    (tmp_path / 's.csv').write_text('')
    _, issues = check_file(tmp_path / 's.csv')
    assert issues.lines() == ['empty: 1', '  no lines at all']
    (tmp_path / 's.csv').write_text('\u0661;1;2;3;4;\u0665\n')
    _, issues = check_file(tmp_path / 's.csv')
    assert "bad class index: 1\n  line 1 (video '\u0661'): '\u0665'" in '\n'.join(issues.lines())


def test_ssv2_score(ssv2_scores, tmp_path):
    """The released answers have plain templates, the splits' JSON files bracketed ones."""
    names = [
        line.replace('[', '').replace(']', '')
        for line in shared_dir('labels', 'ssv2_categories.txt').read_text().splitlines()
        if line
    ]
    labels = write_json(tmp_path / 'labels.json', {name: str(n) for n, name in enumerate(names)})
    ranks = np.argsort(-ssv2_scores.scores, axis=1)
    # Ten on place one, twenty on place five, ten on place six.
    truth = [ranks[n, 0 if n < 10 else 4 if n < 30 else 5] for n in range(VIDEOS)]
    answers = tmp_path / 'test-answers.csv'
    answers.write_text(
        '\n'.join(f'{i};{names[c]}' for i, c in zip(ssv2_scores.ids, truth, strict=True))
    )
    np.savez(tmp_path / 's.npz', ids=ssv2_scores.ids, scores=ssv2_scores.scores)
    expected = {'top1': 25.0, 'top5': 75.0, 'mean_error': 50.0, 'videos': 40.0}
    assert score_ssv2(tmp_path / 's.npz', answers, label_file=labels)[0] == expected
    target, _ = write_ssv2(ssv2_scores, list(ssv2_scores.ids), tmp_path, algorithm='S')
    assert score_ssv2(target, answers, label_file=labels)[0] == expected
    with pytest.raises(ValueError, match=r'pass labels.json with --labels'):
        score_ssv2(target, answers)
    bracketed = [
        {'id': i, 'template': names[c].replace('something', '[something]')}
        for i, c in zip(ssv2_scores.ids, truth, strict=True)
    ]
    split = write_json(tmp_path / 'validation.json', bracketed)
    assert score_ssv2(target, split, label_file=labels)[0] == expected
    frames = tmp_path / 'val.txt'
    frames.write_text('\n'.join(f'{i} 40 {c}' for i, c in zip(ssv2_scores.ids, truth, strict=True)))
    assert score_ssv2(target, frames)[0] == expected
    answers.write_text('100;Eating something')
    with pytest.raises(ValueError, match="label 'Eating something', which is none of the 174"):
        score_ssv2(target, answers, label_file=labels)
    with pytest.raises(ValueError, match='3 labels, expected 174'):
        score_ssv2(target, answers, label_file=write_json(labels, {'a': 0, 'b': 1, 'c': 2}))
