# SPDX-License-Identifier: Apache-2.0
"""Views of real clips, fused as the official code does, re-derived from its formulas."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS

from uniformer_mm.evaluation.protocol import fuse_view_transforms
from uniformer_mm.labels import class_names, permutation

from ..conftest import shared_dir
from .helpers import build_model, config_of, enter, run_pipeline, shrink

decord = pytest.importorskip('decord')
pytest.importorskip('mmaction')


@pytest.fixture(scope='module')
def clip():
    enter('video')
    return shared_dir('data', 'clips', 'videos', 'ta_chi.mp4')


def dense_indices(total: int, frames: int, stride: int, view: int, views: int) -> list[int]:
    """decoder.py of the official code: linspace over frames * stride positions, truncated."""
    span = frames * stride
    delta = max(total - span, 0)
    start = delta // 2 if views == 1 else view * (delta // (views - 1))
    step = (span - 1) / (frames - 1)
    return [int(min(max(start + i * step, 0), total - 1)) for i in range(frames)]


def official_input(path, indices: list[int], size: int, crops: int) -> np.ndarray:
    """Frames as the official loader makes them: normalised, resized, cropped; (crops, 3, T, H, W).

    cv2 stands for torch's bilinear resize, which has the same grid.
    """
    frames = decord.VideoReader(str(path)).get_batch(indices).asnumpy()
    height, width = frames.shape[1:3]
    if width < height:
        shape = (size, math.floor(height / width * size))
    else:
        shape = (math.floor(width / height * size), size)
    made = []
    for frame in frames:
        values = (frame.astype(np.float64) / 255 - 0.45) / 0.225
        made.append(cv2.resize(values, shape, interpolation=cv2.INTER_LINEAR))
    clip_THWC = np.stack(made)
    height, width = clip_THWC.shape[1:3]
    tops, lefts = [math.ceil((height - size) / 2)] * 3, [math.ceil((width - size) / 2)] * 3
    if crops == 3 and height > width:
        tops[0], tops[2] = 0, height - size
    elif crops == 3:
        lefts[0], lefts[2] = 0, width - size
    chosen = [1] if crops == 1 else [0, 1, 2]
    return np.stack([
        clip_THWC[:, tops[c] : tops[c] + size, lefts[c] : lefts[c] + size].transpose(3, 0, 1, 2)
        for c in chosen
    ])  # fmt: skip


def preprocessed(config, results: dict) -> torch.Tensor:
    from mmengine.registry import MODELS

    batch = pseudo_collate([results])
    return MODELS.build(config.model.data_preprocessor)(batch, training=False)['inputs']


def test_four_dense_views_of_kinetics(clip, tmp_path):
    config = config_of('video/uniformer_s_16x4_k400.py', tmp_path, tmp_path)
    info = {'filename': str(clip), 'label': 3, 'start_index': 0, 'modality': 'RGB'}
    inputs = preprocessed(config, run_pipeline(config, info))[0].double().numpy()
    assert inputs.shape == (4, 3, 16, 224, 224)
    total = len(decord.VideoReader(str(clip)))
    for view in range(4):
        indices = dense_indices(total, 16, 4, view, 4)
        expected = official_input(clip, indices, 224, 1)[0]
        assert np.abs(inputs[view] - expected).max() < 1e-4


def test_three_crops_of_something_something(clip, tmp_path):
    frames = decord.VideoReader(str(clip)).get_batch(range(40)).asnumpy()
    folder = tmp_path / 'rawframes'
    folder.mkdir()
    for number, frame in enumerate(frames, start=1):
        cv2.imwrite(str(folder / f'img_{number:05}.jpg'), frame[..., ::-1])
    config = config_of('video/uniformer_s_16_ssv2.py', tmp_path, tmp_path)
    info = {
        'frame_dir': str(folder), 'total_frames': 40, 'label': 3, 'start_index': 1,
        'filename_tmpl': 'img_{:05}.jpg', 'modality': 'RGB', 'offset': 0,
    }  # fmt: skip
    inputs = preprocessed(config, run_pipeline(config, info))[0].double().numpy()
    assert inputs.shape == (3, 3, 16, 224, 224)
    # sth.py: the middle of each segment; BGR because OpenCV's frames are never converted.
    gap = 39 / 16
    files = [int(np.round(gap * i)) + int(gap / 2) + 1 for i in range(16)]
    height, width = frames.shape[1:3]
    shape = (math.floor(width / height * 224), 224)
    for time, number in enumerate(files):
        image = cv2.imread(str(folder / f'img_{number:05}.jpg')).astype(np.float64)
        resized = cv2.resize((image / 255 - 0.45) / 0.225, shape)
        for crop, left in enumerate((0, math.ceil((shape[0] - 224) / 2), shape[0] - 224)):
            expected = resized[:, left : left + 224].transpose(2, 0, 1)
            assert np.abs(inputs[crop, :, time] - expected).max() < 1e-4


@pytest.mark.parametrize(
    ('name', 'views', 'crops'),
    [
        ('ta_chi.mp4', 4, 1),
        ('ta_chi.mp4', 1, 3),
        ('mmaction2_demo.mp4', 5, 3),
        ('SOX5yA1l24A.mp4', 4, 1),
        ('RATRACE_wave_f_nm_np1_fr_goo_37.avi', 4, 1),
    ],
)
def test_one_pass_over_the_frames_gives_the_same_array(clip, name, views, crops):
    clip = clip.with_name(name)
    pipeline = [
        dict(type='DecordInit'),
        dict(type='uniformer_mm.LinspaceSampleFrames', clip_len=8, frame_interval=8,
             num_clips=views, test_mode=True),
        dict(type='DecordDecode'),
        dict(type='uniformer_mm.ClipShortSideResize', short_side=64),
        dict(type='uniformer_mm.ClipUniformCrop', size=64, num_crops=crops),
        dict(type='FormatShape', input_format='NCTHW'),
    ]  # fmt: skip
    fused = fuse_view_transforms(pipeline)
    assert [step['type'] for step in fused][3:] == ['uniformer_mm.StackViews']
    arrays = []
    for steps in (pipeline, fused):
        results = {'filename': str(clip), 'label': 0, 'start_index': 0}
        for step in steps:
            results = TRANSFORMS.build(step)(results)
        arrays.append(results['imgs'])
        assert results['img_shape'] == (64, 64)
    # 8 frames at interval 8 overlap in a short video: some frames are in several views.
    assert arrays[0].dtype == arrays[1].dtype
    assert np.array_equal(*arrays)


def test_other_pipelines_stay_as_they_are():
    pipeline = [dict(type='ClipShortSideResize', short_side=64), dict(type='FormatShape')]
    assert fuse_view_transforms(pipeline) is pipeline


def test_views_are_fused_as_the_official_sum_of_logits(clip, tmp_path):
    config = shrink(config_of('video/quickstart_kinetics.py', tmp_path, tmp_path))
    for step in config.test_dataloader.dataset.pipeline:
        if 'LinspaceSampleFrames' in step['type']:
            step['num_clips'] = 3
    model = build_model(config)
    info = {'filename': str(clip), 'label': 3, 'start_index': 0, 'modality': 'RGB'}
    results = run_pipeline(config, info)
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([results]))
        views = preprocessed(config, results)[0]
        maps = model.backbone(views)
        logits = model.cls_head.fc_cls(maps.mean(dim=(2, 3, 4)))
    assert sample.pred_score.shape == (3, 8)
    assert torch.allclose(sample.pred_score, logits, atol=1e-6)


def test_both_orders_of_kinetics_score_the_same():
    torch.manual_seed(0)
    official, alphabetical = (class_names(f'kinetics400_{n}') for n in ('official', 'alphabetical'))
    scores = torch.randn(5, 400)
    moved = scores[:, permutation('kinetics400_official', 'kinetics400_alphabetical')]
    for row, permuted in zip(scores, moved, strict=True):
        assert official[int(row.argmax())] == alphabetical[int(permuted.argmax())]
