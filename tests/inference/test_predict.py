# SPDX-License-Identifier: Apache-2.0
"""Prediction from end to end: what is written, what is said, what is chosen."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO

import uniformer_mm
from uniformer_mm.cli import main
from uniformer_mm.errors import CheckpointError, UnreadableError
from uniformer_mm.inference.choice import DEFAULT_ROWS, choose
from uniformer_mm.inference.clips import ClipWriter, read_frames
from uniformer_mm.inference.embedded import read_embedded
from uniformer_mm.recipes import config_path, find_recipe

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def carried(untrained, tmp_path):
    """A checkpoint as mmengine's runner saves it, with its config inside."""

    def make(task: str):
        model = untrained(task)
        content = torch.load(model.weights, weights_only=False)
        content['meta']['cfg'] = model.load().pretty_text
        path = tmp_path / f'{task}.pth'
        torch.save(content, path)
        return model, path

    return make


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main(['predict', *map(str, arguments), '--device', 'cpu'])
    return status, *capsys.readouterr()


def test_objects_of_a_folder_as_coco_reads_them(carried, tmp_path, capsys) -> None:
    model, weights = carried('det')
    out = tmp_path / 'out'
    status, text, _ = run(capsys, model.samples[0].parent, '--weights', weights, '--out', out)
    assert status == 0
    assert len(list(out.glob('*.png'))) == len(model.samples)
    coco = COCO(str(out / 'predictions.json'))
    assert [one['name'] for one in coco.loadCats(coco.getCatIds())][:2] == ['circle', 'square']
    results = uniformer_mm.predict(model.samples, model.config, weights, device='cpu')
    for image, found in zip(coco.loadImgs(coco.getImgIds()), results, strict=True):
        assert found.name == image['file_name']
        entries = coco.loadAnns(coco.getAnnIds(image['id']))
        assert [one['score'] for one in entries] == pytest.approx(found.scores.tolist(), rel=1e-3)
        assert (coco.annToMask(entries[0]).astype(bool) == found.masks[0]).all()
        assert image['file_name'] in text


def test_label_maps(untrained, tmp_path, capsys) -> None:
    model = untrained('seg')
    sample = model.samples[0]
    status, _, _ = run(
        capsys, sample, '--model', model.config, '--weights', model.weights, '--out', tmp_path
    )
    assert status == 0
    (found,) = uniformer_mm.predict(sample, model.config, model.weights, device='cpu')
    labels = np.asarray(Image.open(tmp_path / 'labels' / f'{sample.stem}.png'))
    assert (labels == found.labels).all()
    numbers = json.loads((tmp_path / 'predictions.json').read_text())
    assert numbers['classes'][labels.max()] in numbers['predictions'][0]['shares']
    assert sum(numbers['predictions'][0]['shares'].values()) == pytest.approx(1)


def test_a_clip_through_an_image_model_frame_by_frame(untrained, tmp_path, capsys) -> None:
    model = untrained('cls')
    image = cv2.imread(str(model.samples[0]))[..., ::-1]
    with ClipWriter(tmp_path / 'film.mp4', rate=10) as film:
        for _ in range(5):
            film.write(image)
    status, _, _ = run(
        capsys, tmp_path / 'film.mp4', '--model', model.config, '--weights', model.weights,
        '--out', tmp_path / 'out',
    )  # fmt: skip
    assert status == 0
    frames = list(read_frames(tmp_path / 'out' / 'film.mp4'))
    assert len(frames) == 5 and frames[0].shape[0] > image.shape[0]
    predictions = json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions']
    assert [one['file_name'] for one in predictions] == [f'film.mp4#{i}' for i in range(5)]


def test_a_clip_of_a_video_model(untrained, predictor, tmp_path, capsys) -> None:
    model = untrained('video')
    clip = model.samples[0]
    status, text, error = run(
        capsys, clip, model.samples[0].parent / 'none.mp4', '--model', model.config, '--weights',
        model.weights, '--out', tmp_path, '--json',
    )  # fmt: skip
    assert status == 1
    assert 'none.mp4' in error and '1 of 2 inputs could not be read' in error
    (entry,) = json.loads(text)['predictions']
    assert sum(entry['probabilities']) == pytest.approx(1, abs=1e-4)
    assert len(list(read_frames(tmp_path / clip.name))) == len(list(read_frames(clip)))
    # The same frames from memory; decord and OpenCV decode alike, and mp4 is exact here.
    frames = np.stack(list(read_frames(clip)))
    ours = predictor('video')
    (from_file,), (from_memory,) = ours(clip), ours([frames])
    np.testing.assert_allclose(from_memory.probabilities, from_file.probabilities, atol=0.02)
    with pytest.raises(UnreadableError, match='a video model takes clips'):
        ours(frames[0])


def test_one_bad_image_does_not_hold_up_a_batch(untrained, predictor, tmp_path) -> None:
    model = untrained('cls')
    (tmp_path / 'bad.jpg').write_text('no image')
    from uniformer_mm.inference.inputs import find_sources

    inputs = [model.samples[0], tmp_path / 'bad.jpg', model.samples[1]]
    outcomes = list(predictor('cls').stream(find_sources(inputs), batch=3))
    assert [bool(one.error) for one in outcomes] == [False, True, False]
    with pytest.raises(UnreadableError, match=r'bad\.jpg'):
        predictor('cls')(inputs)


def test_persons_from_a_detector(untrained, predictor) -> None:
    model = untrained('pose')
    finder = predictor('det')
    posed = predictor('pose', detector=finder)
    (found,) = posed(model.samples[0])
    image = cv2.imread(str(model.samples[0]))[..., ::-1]
    boxes, scores = finder.find_persons(image)
    np.testing.assert_allclose(found.boxes, boxes)
    assert found.keypoints.shape == (len(boxes), 17, 2) and len(scores) == len(boxes)
    with pytest.raises(ValueError, match="the model is of task 'det'"):
        predictor('det', detector=finder)


def test_an_input_is_never_replaced(untrained, tmp_path) -> None:
    model = untrained('cls')
    image = tmp_path / 'a.png'
    Image.open(model.samples[0]).save(image)
    before = image.read_bytes()
    status = main(
        ['predict', str(image), '--model', str(model.config), '--weights', str(model.weights),
         '--device', 'cpu', '--out', str(tmp_path)]
    )  # fmt: skip
    assert status == 2
    assert image.read_bytes() == before


def test_half_precision_is_near(untrained, predictor) -> None:
    sample = untrained('cls').samples[0]
    (full,), (half,) = predictor('cls')(sample), predictor('cls', precision='bf16')(sample)
    np.testing.assert_allclose(half.probabilities, full.probabilities, atol=0.02)
    assert (half.probabilities != full.probabilities).any()


def test_names_may_be_given(untrained, predictor) -> None:
    names = [f'kind {i}' for i in range(9)]
    (found,) = predictor('cls', classes=names)(untrained('cls').samples[0])
    assert found.class_name in names
    with pytest.raises(ValueError, match='are 2 names; the model has 9 classes'):
        predictor('cls', classes=['a', 'b'])


def test_every_task_has_a_usual_row() -> None:
    for task, row in DEFAULT_ROWS.items():
        recipe = find_recipe(row)
        assert recipe.task == task
        assert recipe.row.released
        assert config_path(recipe).is_file()


def test_what_is_missing_is_said(untrained, tmp_path, monkeypatch) -> None:
    model = untrained('cls')
    with pytest.raises(ValueError, match=r'no published row.*--weights FILE'):
        choose(model.config)
    with pytest.raises(ValueError, match="task='depth' is not known"):
        choose(task='depth')
    with pytest.raises(ValueError, match=r'does not carry its config; name it: --model CONFIG'):
        choose(None, model.weights)
    with pytest.raises(ValueError, match=r"task='det', but the config is of .*'mmpretrain'"):
        choose(model.config, model.weights, 'det')
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(tmp_path))

    def refuse(*_, **__):
        from uniformer_mm.weights.download import DownloadError

        raise DownloadError('no network')

    monkeypatch.setattr('uniformer_mm.weights.resolve.fetch', refuse)
    with pytest.raises(CheckpointError) as caught:
        choose(task='det')
    text = str(caught.value)
    assert f'zoo fetch {DEFAULT_ROWS["det"]}' in text and 'make demo' in text
    assert len(text) < 500


def test_a_carried_config_is_read_as_it_was(untrained) -> None:
    for task in ('det', 'video'):
        config = untrained(task).load()
        assert Config(read_embedded(config.pretty_text, 'x')).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'a = __import__("os").system("true")',
        'a = dict(b=open("x"))',
        'a = [x for x in (1, 2)]',
        'a.b = 1',
        'a = dict(**{"b": 1})',
        'a = (',
    ],
)
def test_a_carried_config_runs_nothing(text) -> None:
    with pytest.raises(ValueError, match=r'w\.pth: the config inside is more than values'):
        read_embedded(text, 'w.pth')
