# SPDX-License-Identifier: Apache-2.0
"""Views of real clips, fused as the official code does, re-derived from its formulas."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS

from uniformer_mm.evaluation import PredictionStore
from uniformer_mm.evaluation.metrics.views import ViewAccuracy, fuse_views
from uniformer_mm.evaluation.record import read_record
from uniformer_mm.evaluation.running import worker
from uniformer_mm.evaluation.running.protocol import fuse_view_transforms
from uniformer_mm.labels import class_names, permutation
from uniformer_mm.models import UniFormer3dClassifier

from ..conftest import shared_dir
from .helpers import TINY, build_model, command, config_of, enter, run_pipeline, shrink

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


def write_frames(clip: Path, folder: Path, count: int, *, turned: bool = False) -> Path:
    """Frames of a clip as ``img_00001.jpg`` ..., perhaps turned to portrait format."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(decord.VideoReader(str(clip)).get_batch(range(count)).asnumpy()):
        frame = cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE) if turned else frame
        cv2.imwrite(str(folder / f'img_{number + 1:05}.jpg'), frame[..., ::-1])
    return folder


@pytest.mark.parametrize('name', ['TrumanShow_wave_f_nm_np1_fr_med_26.avi', 'ta_chi.mp4'])
def test_fifteen_views_of_ucf101(clip, name, tmp_path):
    """5 views x 3 crops; the avi has 49 frames, which is less than the 64 that a view spans."""
    path = clip.with_name(name)
    config = config_of('video/uniformer_s_16x4_ucf101.py', tmp_path, tmp_path)
    info = {'filename': str(path), 'label': 3, 'start_index': 0, 'modality': 'RGB'}
    inputs = preprocessed(config, run_pipeline(config, info))[0].double().numpy()
    assert inputs.shape == (15, 3, 16, 224, 224)
    total = len(decord.VideoReader(str(path)))
    for view in range(5):
        expected = official_input(path, dense_indices(total, 16, 4, view, 5), 224, 3)
        # All views of a crop follow each other; the sum over all of them is the same.
        assert np.abs(inputs[view::5] - expected).max() < 1e-4


@pytest.mark.parametrize(('count', 'turned'), [(40, True), (90, False)])
def test_fifteen_views_of_hmdb51_from_frames(clip, count, turned, tmp_path):
    """hmdb.py: the dense indices plus one name the files; BGR; crops along the longer side."""
    folder = write_frames(clip, tmp_path / 'wave/clip', count, turned=turned)
    config = config_of('video/uniformer_s_16x4_hmdb51.py', tmp_path, tmp_path)
    info = {
        'frame_dir': str(folder), 'total_frames': count, 'label': 3, 'start_index': 1,
        'filename_tmpl': 'img_{:05}.jpg', 'modality': 'RGB', 'offset': 0,
    }  # fmt: skip
    inputs = preprocessed(config, run_pipeline(config, info))[0].double().numpy()
    assert inputs.shape == (15, 3, 16, 224, 224)
    for view in range(5):
        for time, index in enumerate(dense_indices(count, 16, 4, view, 5)):
            image = cv2.imread(str(folder / f'img_{index + 1:05}.jpg')).astype(np.float64)
            height, width = image.shape[:2]
            assert (height > width) == turned
            side = math.floor(max(height, width) / min(height, width) * 224)
            shape = (224, side) if turned else (side, 224)
            resized = cv2.resize((image / 255 - 0.45) / 0.225, shape)
            for crop, start in enumerate((0, math.ceil((side - 224) / 2), side - 224)):
                cut = np.s_[start : start + 224]
                expected = resized[cut] if turned else resized[:, cut]
                made = inputs[5 * crop + view, :, time].transpose(1, 2, 0)
                assert np.abs(made - expected).max() < 1e-4


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
    decoded = {'filename': str(clip), 'label': 0, 'start_index': 0}
    for step in pipeline[:3]:
        # Once: decord reads the last frame of some AVI files differently each time
        # (docs/evaluation.md).
        decoded = TRANSFORMS.build(step)(decoded)
    arrays = []
    for steps in (pipeline, fused):
        results = dict(decoded)
        for step in steps[3:]:
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
    # The official test sums the logits of all views; so do metric and toolbox, as a mean.
    total = logits.double().sum(0)
    assert torch.allclose(fuse_views(sample.pred_score, 'logits').double(), total / 3, atol=1e-6)
    metric = ViewAccuracy(topk=(1, 2))
    ranked = total.argsort(descending=True)
    chances = logits.double().softmax(1).sum(0).argsort(descending=True)
    for place, hits in ((0, (1, 1)), (1, (0, 1)), (2, (0, 0))):
        metric.results.clear()
        metric.process(
            {}, [{'pred_score': sample.pred_score, 'gt_label': ranked[place : place + 1]}]
        )
        found = metric.compute_metrics(metric.results)
        assert (found['top1'], found['top2']) == hits
        assert found['top1_prob'] == float(chances[0] == ranked[place])
    stock = config_of('video/quickstart_kinetics.py', tmp_path, tmp_path, stock=True)
    model.cls_head.average_clips = stock.model.cls_head.average_clips
    with torch.no_grad():
        (averaged,) = model.test_step(pseudo_collate([results]))
    assert torch.allclose(averaged.pred_score.double(), total / 3, atol=1e-6)


def test_one_set_of_videos_under_two_lists(clip, tmp_path, monkeypatch):
    """The same clips, numbered in either class order: equal numbers, permuted logits."""
    torch.manual_seed(0)
    network = UniFormer3dClassifier(TINY, num_classes=400).eval()
    weights = tmp_path / 'uniformer_small_k400_16x4.pth'
    torch.save({'model_state': network.state_dict()}, weights)
    config = config_of('video/uniformer_s_16x4_k400.py', tmp_path, tmp_path)
    clips = [clip.with_name(f'{name}.mp4') for name in ('ta_chi', 'skateboarding', 'WUzgd7C1pWA')]
    official = class_names('kinetics400_official')
    places = []
    for path in clips:
        info = {'filename': str(path), 'label': 0, 'start_index': 0, 'modality': 'RGB'}
        views = preprocessed(config, run_pipeline(config, info))[0]
        with torch.no_grad():
            places.append(network(views).double().sum(0).argsort(descending=True).tolist())
    # Labels at the first, the third and the last place of the official ranking.
    truth = [official[places[0][0]], official[places[1][2]], official[places[2][-1]]]

    def run_here(folder: Path, gpus: int, advance) -> dict:
        shrink(Config.fromfile(folder / worker.CONFIG)).dump(folder / worker.CONFIG)
        return worker.run(folder)

    monkeypatch.setattr(
        import_module('uniformer_mm.evaluation.running.reproduce'), 'run_test', run_here
    )
    logits, metrics = {}, {}
    for order in ('official', 'alphabetical'):
        names = class_names(f'kinetics400_{order}')
        root = tmp_path / order / 'kinetics400'
        lines = []
        for path, name in zip(clips, truth, strict=True):
            folder = root / 'videos_val' / name.replace(' ', '_')
            folder.mkdir(parents=True)
            (folder / path.name).symlink_to(path)
            lines.append(f'{folder.name}/{path.name} {names.index(name)}\n')
        (root / 'kinetics400_val_list_videos.txt').write_text(''.join(lines))
        status, words = command(
            'reproduce', 'vid/k400_s_16x4', '--weights', str(weights), '--data', str(root.parent),
            '--gpus', '0', '--workers', '0', '--batch-size', '1', '--limit', '3', '--work-dir',
            str(root / 'work'),
        )  # fmt: skip
        assert status == 0, words
        (file,) = (root / 'work').rglob('record.json')
        record = read_record(file)
        assert record.class_order.startswith('kinetics400_official (')
        metrics[order] = record.metrics
        results = [stored.results[0] for stored in PredictionStore(file.parent).read()]
        assert [names[result['label']] for result in results] == truth
        logits[order] = np.stack([result['logits'] for result in results])
    assert metrics['official'] == metrics['alphabetical']
    assert metrics['official']['top1'] == pytest.approx(100 / 3, abs=1e-3)
    assert metrics['official']['top5'] == pytest.approx(200 / 3, abs=1e-3)
    rows = permutation('kinetics400_official', 'kinetics400_alphabetical')
    np.testing.assert_allclose(logits['alphabetical'], logits['official'][..., rows], atol=1e-6)
    assert np.abs(logits['alphabetical'] - logits['official']).max() > 0.1


def test_both_orders_of_kinetics_score_the_same():
    torch.manual_seed(0)
    official, alphabetical = (class_names(f'kinetics400_{n}') for n in ('official', 'alphabetical'))
    scores = torch.randn(5, 400)
    moved = scores[:, permutation('kinetics400_official', 'kinetics400_alphabetical')]
    for row, permuted in zip(scores, moved, strict=True):
        assert official[int(row.argmax())] == alphabetical[int(permuted.argmax())]
