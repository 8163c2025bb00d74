# SPDX-License-Identifier: Apache-2.0
"""The toolboxes' own ways to predict take our configs and weights, and agree with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from uniformer_mm.inference.engines import import_toolbox
from uniformer_mm.recipes import config_path, find_recipe

from ..conftest import ROOT

pytestmark = pytest.mark.filterwarnings('ignore')


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))


def test_mmdet(untrained, predictor, tmp_path) -> None:
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    model = untrained('det')
    image = str(model.samples[0])
    inferencer = DetInferencer(str(model.config), str(model.weights), device='cpu')
    found = inferencer(image, out_dir=str(tmp_path), no_save_pred=False)['predictions'][0]
    assert read(tmp_path / 'vis' / model.samples[0].name).shape == read(image).shape
    sample = inference_detector(
        init_detector(str(model.config), str(model.weights), device='cpu'), image
    ).pred_instances
    np.testing.assert_allclose(found['scores'], sample.scores, rtol=1e-4)
    (ours,) = predictor('det')(image)
    np.testing.assert_allclose(ours.scores, sample.scores, rtol=1e-4)
    np.testing.assert_allclose(ours.boxes, sample.bboxes, rtol=1e-3, atol=1e-2)
    assert (ours.labels == sample.labels.numpy()).all()
    assert (ours.masks == sample.masks.numpy()).all()
    assert ours.classes == inferencer.visualizer.dataset_meta['classes']


def test_mmseg(untrained, predictor, tmp_path) -> None:
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    model = untrained('seg')
    image = str(model.samples[0])
    inferencer = MMSegInferencer(str(model.config), str(model.weights), device='cpu')
    found = inferencer(image, out_dir=str(tmp_path))['predictions']
    assert read(tmp_path / 'vis' / model.samples[0].name).shape == read(image).shape
    sample = inference_model(init_model(str(model.config), str(model.weights), 'cpu'), image)
    theirs = sample.pred_sem_seg.data[0].numpy()
    assert (found == theirs).all()
    (ours,) = predictor('seg')(image)
    assert (ours.labels == theirs).all()
    assert list(ours.classes) == list(inferencer.model.dataset_meta['classes'])
    assert [list(color) for color in ours.colors] == inferencer.model.dataset_meta['palette']


def test_mmpose(untrained, predictor, tmp_path) -> None:
    from mmpose.apis import MMPoseInferencer, inference_topdown, init_model

    model = untrained('pose')
    image = str(model.samples[0])
    inferencer = MMPoseInferencer(
        str(model.config), str(model.weights), device='cpu', det_model='whole_image'
    )
    (found,) = inferencer(image, vis_out_dir=str(tmp_path))
    assert read(tmp_path / model.samples[0].name).shape == read(image).shape
    network = init_model(str(model.config), str(model.weights), device='cpu')
    (sample,) = inference_topdown(network, image)
    np.testing.assert_allclose(
        found['predictions'][0][0]['keypoints'], sample.pred_instances.keypoints[0], rtol=1e-4
    )
    (ours,) = predictor('pose')(image)
    np.testing.assert_allclose(ours.keypoints, sample.pred_instances.keypoints, rtol=1e-4)
    np.testing.assert_allclose(
        ours.keypoint_scores, sample.pred_instances.keypoint_scores, rtol=1e-4
    )


def test_mmaction(untrained, predictor) -> None:
    from mmaction.apis import MMAction2Inferencer, inference_recognizer, init_recognizer

    model = untrained('video')
    clip = str(model.samples[0])
    inferencer = MMAction2Inferencer(str(model.config), str(model.weights), device='cpu')
    # vid_out_dir= needs moviepy.
    result = inferencer(clip, return_vis=True)
    assert result['visualization'][0].shape[-1] == 3
    found = result['predictions'][0]['rec_scores'][0]
    network = init_recognizer(str(model.config), str(model.weights), device='cpu')
    sample = inference_recognizer(network, clip)
    np.testing.assert_allclose(found, sample.pred_score, rtol=1e-3, atol=1e-5)
    (ours,) = predictor('video')(clip)
    # The head gives logits (average_clips='score').
    expected = sample.pred_score.double().exp()
    np.testing.assert_allclose(ours.probabilities, expected / expected.sum(), rtol=1e-3, atol=1e-5)
    assert ours.classes[:2] == ('drifting', 'falling')


def test_mmpretrain(untrained, predictor, tmp_path) -> None:
    from mmpretrain import ImageClassificationInferencer, init_model

    model = untrained('cls')
    image = str(model.samples[0])
    inferencer = ImageClassificationInferencer(str(model.config), str(model.weights), device='cpu')
    (found,) = inferencer(image, show_dir=str(tmp_path / 'drawn'))
    assert list((tmp_path / 'drawn').iterdir())
    network = init_model(str(model.config), str(model.weights), device='cpu')
    # inference_model() takes only models that its own list knows.
    (theirs,) = ImageClassificationInferencer(network)(image)
    np.testing.assert_allclose(found['pred_scores'], theirs['pred_scores'], rtol=1e-4)
    (ours,) = predictor('cls')(image)
    np.testing.assert_allclose(ours.probabilities, theirs['pred_scores'], rtol=1e-4)
    assert ours.class_name == found['pred_class'] == theirs['pred_class']


FULL_SIZE = {
    'det/mask_rcnn_s_h14_1x': ('mmdet.apis', 'DetInferencer', {}),
    'seg/fpn_s_g': ('mmseg.apis', 'MMSegInferencer', {}),
    'pose/s_256x192': ('mmpose.apis', 'MMPoseInferencer', {'det_model': 'whole_image'}),
    'vid/k400_s_16x4': ('mmaction.apis.inferencers', 'ActionRecogInferencer', {}),
    'cls/s': ('mmpretrain', 'ImageClassificationInferencer', {}),
}


@pytest.mark.slow
@pytest.mark.parametrize('row', FULL_SIZE)
def test_a_row_s_config_and_name_where_the_package_is_not_imported(
    row, tmp_path, world, untrained
) -> None:
    recipe = find_recipe(row)
    sample = untrained(recipe.task).samples[0]
    import_toolbox(recipe.task)
    config = Config.fromfile(config_path(recipe))
    torch.manual_seed(0)
    state = MODELS.build(config.model).state_dict()
    torch.save({'state_dict': state}, tmp_path / recipe.row.file)
    module, name, options = FULL_SIZE[row]
    script = (
        f'import sys\nfrom {module} import {name}\n'
        "assert not any(one.startswith('uniformer_mm') for one in sys.modules)\n"
        f'found = {name}({str(config_path(recipe))!r}, "uniformer://{row}", device="cpu", '
        f'**{options!r})({str(sample)!r})\n'
        'print("found", len(list(found)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        env=os.environ | {'UNIFORMER_WEIGHTS': str(tmp_path), 'UNIFORMER_DATA': str(world)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'found' in done.stdout, done.stderr[-3000:]
    assert f'uniformer://{row}' in done.stdout + done.stderr


@pytest.mark.slow
def test_every_config_says_what_the_inferencers_ask_for() -> None:
    for task in ('det', 'seg', 'pose', 'video', 'cls'):
        for path in sorted((ROOT / 'configs' / task).glob('*.py')):
            config = Config.fromfile(path)
            assert config.test_pipeline == config.test_dataloader.dataset.pipeline, path
            assert config.custom_imports.imports == ['uniformer_mm'], path
            assert 'visualization' in config.default_hooks, path
            if task == 'pose':
                assert config.data_mode == config.test_dataloader.dataset.data_mode, path
                assert config.dataset_type == config.test_dataloader.dataset.type, path
