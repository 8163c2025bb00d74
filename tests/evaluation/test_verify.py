# SPDX-License-Identifier: Apache-2.0
"""Measured accuracies equal those of an independent computation on real photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import shared_dir
from tests.weights.helpers import classifier_state, save
from uniformer_mm.evaluation import verify
from uniformer_mm.evaluation.verify import HALF, IMAGENET, Measurement, verify_row
from uniformer_mm.models import UniFormer2dClassifier
from uniformer_mm.weights import CheckpointError, zoo

from .helpers import make_record

pytest.importorskip('torchvision')

SIZE = 48


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> Path:
    """Two validation photos of each of imagenette's ten classes."""
    source = shared_dir('data', 'imagenette', 'val')
    root = tmp_path_factory.mktemp('val')
    for folder in sorted(source.iterdir()):
        (root / folder.name).mkdir()
        for photo in sorted(folder.iterdir())[:2]:
            (root / folder.name / photo.name).symlink_to(photo.resolve())
    return root


@pytest.fixture(scope='module')
def weights(photos, tmp_path_factory) -> tuple[Path, dict]:
    """Random weights whose mean scores are taken off, so that each photo has its own best class."""
    state = classifier_state('tiny', classes=1000)
    model = loaded(state)
    with torch.no_grad():
        scores = [model(pixels(path, SIZE, IMAGENET))[0] for path in photos.glob('*/*')]
    state['head.bias'] = state['head.bias'] - torch.stack(scores).mean(0)
    return save(tmp_path_factory.mktemp('w') / 'w.pth', {'model': state}), state


def loaded(state: dict) -> torch.nn.Module:
    model = UniFormer2dClassifier('tiny', num_classes=1000).eval()
    model.load_state_dict(state)
    return model


def small_row(monkeypatch, row_id: str) -> None:
    """The row with a small arch and input, so that the protocol is what costs time."""
    row = replace(zoo.find_row(row_id), arch='tiny', size=str(SIZE), layer_scale='')
    monkeypatch.setattr(verify, 'find_row', lambda name: row)


def pixels(path: Path, short: int, norm: tuple) -> torch.Tensor:
    """The network's input for a photo, from PIL and NumPy alone."""
    with Image.open(path) as image:
        image = image.convert('RGB')
        scale = short / min(image.size)
        image = image.resize([int(side * scale) for side in image.size], Image.BICUBIC)
        left, top = (round((side - SIZE) / 2) for side in image.size)
        image = image.crop((left, top, left + SIZE, top + SIZE))
        values = np.asarray(image, dtype=np.float32) / 255
    values = (values - np.float32(norm[0])) / np.float32(norm[1])
    return torch.from_numpy(values.transpose(2, 0, 1)[None].copy())


def predictions(photos: Path, state: dict, short: int, norm: tuple) -> dict[Path, list[int]]:
    """Best five classes of each photo."""
    model = loaded(state)
    with torch.no_grad():
        return {
            path: model(pixels(path, short, norm))[0].argsort(descending=True)[:5].tolist()
            for path in sorted(photos.glob('*/*'))
        }


def accuracy(best: dict[Path, list[int]], ids: dict[str, int], top: int) -> float:
    hits = [ids[path.parent.name] in classes[:top] for path, classes in best.items()]
    return 100 * sum(hits) / len(hits)


@pytest.mark.parametrize(
    ('row_id', 'short', 'norms'),
    [('cls/s', int(SIZE / 0.875), [IMAGENET]), ('cls_tl/s_224', int(SIZE / 0.9), [IMAGENET, HALF])],
)
def test_equals_an_independent_computation(
    row_id, short, norms, photos, weights, tmp_path, monkeypatch
):
    small_row(monkeypatch, row_id)
    path, state = weights
    best = [predictions(photos, state, short, norm) for norm in norms]
    # Ids under which some photos are right at the first guess, some later, and others not.
    favourites = {
        path.parent.name: five[index // 2 % 2] for index, (path, five) in enumerate(best[0].items())
    }
    (tmp_path / 'classes.json').write_text(json.dumps(favourites))
    measured = verify_row(
        row_id, photos, checkpoint=path, classes=tmp_path / 'classes.json', batch_size=7, workers=0
    )
    assert [m.normalisation for m in measured] == norms
    for result, truth in zip(measured, best, strict=True):
        assert result.images == 20
        assert result.top1 == pytest.approx(accuracy(truth, favourites, 1))
        assert result.top5 == pytest.approx(accuracy(truth, favourites, 5))
        assert not result.comparable and result.agrees is None
    assert 0 < measured[0].top1 < 100
    assert measured[0].top1 < measured[0].top5


def test_class_ids_from_a_list(photos, weights, tmp_path, monkeypatch):
    small_row(monkeypatch, 'cls/s')
    path, _ = weights
    folders = sorted(p.name for p in photos.iterdir())
    (tmp_path / 'list.txt').write_text('\n'.join(reversed(folders)))
    as_list = verify.class_ids(folders, 1000, tmp_path / 'list.txt')
    assert as_list == {name: 9 - i for i, name in enumerate(folders)}
    assert verify.class_ids(folders, 10, None) == {name: i for i, name in enumerate(folders)}
    (tmp_path / 'short.txt').write_text(folders[0])
    with pytest.raises(ValueError, match=rf"gives no class id for \['{folders[1]}'"):
        verify_row('cls/s', photos, checkpoint=path, classes=tmp_path / 'short.txt')


def test_which_classes_must_be_said(photos, weights):
    with pytest.raises(ValueError, match='data has 10 class folders, the row 1000 classes'):
        verify_row('cls/s', photos, checkpoint=weights[0])


def test_other_tasks_and_folders(tmp_path):
    with pytest.raises(ValueError, match=r'det/mask_rcnn_s_h14_1x: verify measures image class'):
        verify_row('det/mask_rcnn_s_h14_1x', tmp_path)
    with pytest.raises(ValueError, match='data='):
        verify_row('cls/s', tmp_path / 'absent')


def test_wrong_weights_do_not_get_measured(photos, weights, tmp_path):
    (tmp_path / 'c.json').write_text(json.dumps({p.name: 0 for p in photos.iterdir()}))
    with pytest.raises(CheckpointError, match=r'this checkpoint is tiny.*the model is small'):
        verify_row('cls/s', photos, checkpoint=weights[0], classes=tmp_path / 'c.json')


@pytest.mark.parametrize(
    ('top1', 'images', 'agrees'), [(82.9, 50_000, True), (82.8, 50_000, True),
                                   (83.04, 50_000, True), (83.1, 50_000, False),
                                   (82.7, 50_000, False), (82.9, 47_600, True),
                                   (82.75, 50_000, True), (82.9, 47_000, None), (99.0, 300, None)],
)  # fmt: skip
def test_verdict(top1, images, agrees):
    """The same as that of ``reproduce`` about the same number."""
    assert Measurement('cls/s', IMAGENET, top1, 96.0, images, 82.9).agrees is agrees
    published = {'top1': 82.9}
    record = make_record(
        images, row='cls/s', task='cls', config='', metrics={'top1': top1}, published=published,
        published_files=50_000,
    )  # fmt: skip
    assert record.agrees is agrees


def test_no_verdict_on_other_classes():
    part = Measurement('cls/s', IMAGENET, 82.9, 96.0, 48_500, 82.9, all_classes=False)
    assert part.agrees is None


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'no such file'),
        ('{"a": 0, ', 'is no JSON object'),
        ('{"a": 0, "b": 1000}', "gives 'b' the class id 1000, not a whole number from 0 to 999"),
        ('{"a": 0, "b": -1}', "gives 'b' the class id -1"),
        ('{"a": true, "b": 1}', "gives 'a' the class id True"),
        ('{"a": 1.0, "b": 1}', "gives 'a' the class id 1.0"),
        ('{"b": 1}', r"gives no class id for \['a'\]"),
        (b'\xff\xfe\x00', 'is no text in UTF-8'),
    ],
)
def test_classes_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / 'ids.json'
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"^classes='{path}'.*{message}") as caught:
        verify.class_ids(['a', 'b'], 1000, path)
    assert '\n' not in str(caught.value)


def test_classes_that_is_a_folder(tmp_path):
    with pytest.raises(ValueError, match=rf"^classes='{tmp_path}' cannot be read \(Is a directory"):
        verify.class_ids(['a'], 1000, tmp_path)


@pytest.mark.parametrize('device', ['bogus', 'cuda:99', 'meta', ''])
def test_devices_that_are_not_there(tmp_path, device):
    with pytest.raises(ValueError, match=rf"^device='{device}' cannot be used here") as caught:
        verify_row('cls/s', tmp_path, device=device)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('workers', [0, 1])
def test_an_unreadable_photo(weights, tmp_path, monkeypatch, workers):
    small_row(monkeypatch, 'cls/s')
    photo = tmp_path / 'val' / 'a' / 'x.png'
    photo.parent.mkdir(parents=True)
    photo.write_text('no photo')
    (tmp_path / 'ids.json').write_text('{"a": 0}')
    with pytest.raises(ValueError, match=rf'^{photo} cannot be read as an image \(.*\n?') as caught:
        verify_row(
            'cls/s', tmp_path / 'val', checkpoint=weights[0], classes=tmp_path / 'ids.json',
            workers=workers,
        )  # fmt: skip
    assert '\n' not in str(caught.value)
