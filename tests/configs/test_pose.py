# SPDX-License-Identifier: Apache-2.0
"""The pose configs against the recipe: sums, targets and draws recomputed from its formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

from uniformer_mm.datasets.pose import ClippedBBoxTransform

from ..conftest import ROOT, shared_dir

pytest.importorskip('mmpose', reason='mmpose is not installed; make setup installs it')

REAL = ROOT / 'configs/pose/td_hm_uniformer_s_256x192.py'
QUICKSTART = ROOT / 'configs/pose/quickstart.py'
# exp/*/config.py of the official pose_estimation: lr, persons per GPU, stochastic depth, sigma.
ROWS = {
    's_256x192': (2e-3, 128, 0.2, 2),
    'b_256x192': (2e-3, 128, 0.4, 2),
    's_384x288': (2e-3, 128, 0.2, 3),
    'b_384x288': (5e-4, 32, 0.5, 3),
    's_448x320': (1e-3, 64, 0.2, 3),
    'b_448x320': (5e-4, 32, 0.55, 3),
}
ARCHS = {'s': 'small', 'b': 'base'}


def row_path(row: str) -> Path:
    return ROOT / f'configs/pose/td_hm_uniformer_{row}.py'


@pytest.fixture(autouse=True)
def _mmpose_scope():
    from mmpose.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpose'):
        yield


def load(path: Path, data_root: Path | str = 'data') -> Config:
    """The config with random weights and without the fp16 that needs a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data_root))
        cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.type = 'OptimWrapper'
    return cfg


def build_model(cfg: Config) -> torch.nn.Module:
    from mmpose.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def build_dataset(cfg: Config, **changes):
    """The training set on the shared photos."""
    from mmpose.registry import DATASETS

    return DATASETS.build(dict(cfg.train_dataloader.dataset, **changes))


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """A data root whose ``coco`` is the shared photos of persons."""
    (tmp_path / 'coco').symlink_to(shared_dir('data', 'coco_pose').resolve())
    return tmp_path


@pytest.mark.parametrize('path', [REAL, QUICKSTART])
def test_loads_and_survives_a_dump_from_any_directory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load(path, '/elsewhere')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/coco'
    assert cfg.val_evaluator.ann_file.startswith('/elsewhere/coco/annotations/')
    assert cfg.test_dataloader == cfg.val_dataloader
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


@pytest.mark.parametrize('row', ROWS)
def test_initial_weights_and_the_row_of_the_recipe(row: str) -> None:
    lr, batch, drop_path, sigma = ROWS[row]
    arch = ARCHS[row[0]]
    height, width = map(int, row[2:].split('x'))
    cfg = Config.fromfile(row_path(row))
    assert cfg.model.backbone == dict(
        type='uniformer_mm.UniFormer2d',
        arch=arch,
        attention='global',
        out_indices=(3,),
        out_norm='ln',
        drop_path_rate=drop_path,
        init_cfg=dict(type='UniFormerPretrained', checkpoint=f'uniformer://{arch}_in1k'),
    )
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'clip_grad' not in cfg.optim_wrapper
    assert 'paramwise_cfg' not in cfg.optim_wrapper
    assert cfg.optim_wrapper.optimizer.lr == lr
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (batch, 210)
    assert cfg.auto_scale_lr.base_batch_size == 8 * batch
    codec = dict(
        type='MSRAHeatmap',
        input_size=(width, height),
        heatmap_size=(width // 4, height // 4),
        sigma=sigma,
    )
    assert cfg.model.head.decoder == codec
    for dataset in (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset):
        (cut,) = [t for t in dataset.pipeline if t['type'] == 'TopdownAffine']
        assert cut['input_size'] == (width, height)
    (target,) = [t for t in cfg.train_dataloader.dataset.pipeline if t['type'] == 'GenerateTarget']
    assert target['encoder'] == codec


def test_parameters_all_train_and_all_decay() -> None:
    """Backbone of recipes 1.5 without the norms of stages 1-3, and the deconvolution head."""
    cfg = load(REAL)
    model = build_model(cfg)
    backbone = 21_033_280 - 2 * (64 + 128 + 320)
    deconvs = 512 * 256 * 16 + 2 * 256 * 256 * 16
    head = deconvs + 3 * 2 * 256 + 256 * 17 + 17
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.parameters()) == backbone + head
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules())
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))
    for group in groups:
        assert (group['lr'], group['weight_decay'], group['betas']) == (2e-3, 0.01, (0.9, 0.999))


def test_rates_follow_mmcv_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps at 170 and 200 times a warm-up that ends after 500 iterations."""
    cfg = load(REAL)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=dict(optimizer=optimizer))
        for s in cfg.param_scheduler
    ]
    per_epoch = 3
    for iteration in range(210 * per_epoch):
        epoch = iteration // per_epoch
        expected = 2e-3 * 0.1 ** ((epoch >= 170) + (epoch >= 200))
        if iteration < 500:
            expected *= 1 - (1 - iteration / 500) * (1 - 0.001)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-9), iteration
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % per_epoch == 0:
                scheduler.step()


def official_scale_rotation(sf: float = 0.5, rf: float = 40.0, prob: float = 0.6):
    """``TopDownGetRandomScaleRotation``, from the same stream of random numbers."""
    scale = np.clip(np.random.randn() * sf + 1, 1 - sf, 1 + sf)
    rotation = np.clip(np.random.randn() * rf, -2 * rf, 2 * rf)
    return scale, rotation if np.random.rand() <= prob else 0.0


def test_box_draws_are_the_official_ones() -> None:
    """Draw by draw; and the share at the ends tells clipped from truncated normals."""
    cfg = load(REAL)
    (args,) = [dict(t) for t in cfg.augmentation if t['type'].endswith('ClippedBBoxTransform')]
    args.pop('type')
    transform = ClippedBBoxTransform(**args)
    box = np.array([[30.0, 70.0]], dtype=np.float32)
    factors, rotations = [], []
    for seed in range(3000):
        np.random.seed(seed)
        scale, rotation = official_scale_rotation()
        np.random.seed(seed)
        results = transform(dict(bbox_scale=box, bbox_center=np.array([[5.0, 6.0]])))
        np.testing.assert_allclose(results['bbox_scale'], box * scale, rtol=1e-6)
        np.testing.assert_allclose(results['bbox_rotation'], [rotation], rtol=1e-6)
        np.testing.assert_array_equal(results['bbox_center'], [[5.0, 6.0]])
        factors.append(results['bbox_scale'][0, 0] / 30)
        rotations.append(results['bbox_rotation'][0])
    at_ends = np.mean((np.array(factors) < 0.501) | (np.array(factors) > 1.499))
    assert at_ends == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.035)
    assert np.mean(np.array(rotations) != 0) == pytest.approx(0.6, abs=0.035)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (dict(scale_std=1.0), 'scale_std=1.0'),
        (dict(rotate_std=-1.0), 'rotate_std=-1.0'),
        (dict(rotate_prob=1.5), 'rotate_prob=1.5'),
    ],
)
def test_impossible_box_draws_are_refused(args: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClippedBBoxTransform(**args)


def test_half_body_draws_are_the_official_ones() -> None:
    """30 % of the persons with more than 8 joints; upper where N(0, 1) < 0.5; 1.5 x their box."""
    from mmpose.registry import TRANSFORMS

    cfg = load(REAL)
    (args,) = [dict(t) for t in cfg.augmentation if t['type'] == 'RandomHalfBody']
    transform = TRANSFORMS.build(args)
    rng = np.random.RandomState(0)
    joints = rng.uniform(0, 100, (1, 17, 2)).astype(np.float32)
    whole = dict(
        keypoints=joints,
        bbox_center=np.full((1, 2), 50, np.float32),
        bbox_scale=np.full((1, 2), 99, np.float32),
        upper_body_ids=list(range(11)),
        lower_body_ids=list(range(11, 17)),
    )
    np.random.seed(0)
    trials, upper, lower = 6000, 0, 0
    for _ in range(trials):
        results = transform(dict(whole, keypoints_visible=np.ones((1, 17), np.float32)))
        for ids, half in ((slice(11), 'upper'), (slice(11, 17), 'lower')):
            chosen = joints[0, ids]
            if np.allclose(results['bbox_center'], chosen.mean(0), atol=1e-3):
                extent = 1.5 * (chosen.max(0) - chosen.min(0))
                np.testing.assert_allclose(results['bbox_scale'][0], extent, rtol=1e-5)
                upper, lower = upper + (half == 'upper'), lower + (half == 'lower')
    prefers_upper = 0.5 * (1 + math.erf(0.5 / math.sqrt(2)))
    assert (upper + lower) / trials == pytest.approx(0.3, abs=0.024)
    assert upper / (upper + lower) == pytest.approx(prefers_upper, abs=0.044)
    assert args['upper_prioritized_prob'] == pytest.approx(prefers_upper, rel=1e-12)
    eight = np.zeros((1, 17), np.float32)
    eight[0, :8] = 1
    for _ in range(100):
        results = transform(dict(whole, keypoints_visible=eight))
        np.testing.assert_array_equal(results['bbox_scale'], whole['bbox_scale'])


def gaussian_target(point: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray | None:
    """The official non-unbiased target of one joint; None where the joint has no weight."""
    width, height = size
    mu_x, mu_y = int(point[0] / 4 + 0.5), int(point[1] / 4 + 0.5)
    reach = int(3 * sigma)
    if mu_x - reach >= width or mu_y - reach >= height:
        return None
    if mu_x + reach + 1 < 0 or mu_y + reach + 1 < 0:
        return None
    y, x = np.mgrid[:height, :width]
    value = np.exp(-((x - mu_x) ** 2 + (y - mu_y) ** 2) / (2 * sigma**2))
    return value * (abs(x - mu_x) <= reach) * (abs(y - mu_y) <= reach)


@pytest.mark.parametrize(
    ('path', 'sigma'),
    [(REAL, 2), (row_path('s_384x288'), 3), (row_path('b_448x320'), 3), (QUICKSTART, 1)],
)
def test_pipeline_makes_the_official_targets_from_real_photos(
    path: Path, sigma: int, coco_root: Path
) -> None:
    cfg = load(path, coco_root)
    width, height = cfg.codec.input_size
    dataset = build_dataset(cfg, pipeline=cfg.train_pipeline[:-1])
    np.random.seed(0)
    weighted = 0
    for index in range(0, 60, 3):
        results = dataset[index]
        assert results['img'].shape == (height, width, 3)
        points = results['transformed_keypoints'][0]
        visible = results['keypoints_visible'][0]
        weights, heatmaps = results['keypoint_weights'][0], results['heatmaps']
        for joint in range(17):
            target = gaussian_target(points[joint], (width // 4, height // 4), sigma)
            if visible[joint] < 0.5 or target is None:
                assert weights[joint] == 0
            else:
                assert weights[joint] == 1
                np.testing.assert_allclose(heatmaps[joint], target, atol=1e-6)
                weighted += 1
    assert weighted > 50


def test_boxes_keep_their_centres(coco_root: Path) -> None:
    """No shift: without a flip and a half body the sample is cut around the annotated box."""
    cfg = load(REAL, coco_root)
    left_out = ('RandomFlip', 'RandomHalfBody', 'PackPoseInputs')
    keep = [t for t in cfg.train_pipeline if t['type'] not in left_out]
    dataset = build_dataset(cfg, pipeline=keep)
    for index in range(0, 40, 4):
        box = dataset.get_data_info(index)['bbox'][0]
        centre = (box[:2] + box[2:]) / 2
        np.testing.assert_allclose(dataset[index]['input_center'], centre, atol=1e-3)


def test_evaluation_uses_the_detected_boxes(coco_root: Path) -> None:
    """Real detections of four photos: every person box, its score kept; the scoring rule."""
    import json

    from mmpose.registry import DATASETS

    cfg = load(REAL, coco_root)
    det_file = coco_root / 'coco/person_detection_results/test_coco_det_AP_H_56.json'
    dataset = DATASETS.build(
        dict(
            cfg.test_dataloader.dataset,
            ann_file='annotations/test_coco_4img.json',
            bbox_file=str(det_file),
        )
    )
    persons = [d for d in json.loads(det_file.read_text()) if d['category_id'] == 1]
    assert len(dataset) == len(persons) > 4
    for index in range(0, len(persons), 5):
        info = dataset.get_data_info(index)
        assert info['bbox_score'][0] == pytest.approx(persons[index]['score'])
    assert cfg.test_dataloader.dataset.bbox_file.endswith(
        'coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json'
    )
    rule = cfg.test_evaluator
    assert (rule.nms_mode, rule.nms_thr, rule.keypoint_score_thr) == ('oks_nms', 0.9, 0.2)
    assert rule.score_mode == 'bbox_keypoint'
    assert cfg.model.test_cfg == dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True)


@pytest.mark.parametrize('path', [REAL, row_path('b_384x288')])
def test_one_step_on_real_photos(path: Path, coco_root: Path) -> None:
    """The loss is the official mean over joints, finite, and reaches every parameter."""
    from mmengine.dataset import pseudo_collate

    cfg = load(path, coco_root)
    cfg.model.backbone.drop_path_rate = 0.0
    if path != REAL:
        cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), dims=(16, 32, 64, 64), head_dim=32)
        cfg.model.head.in_channels = 64
    model = build_model(cfg).train()
    torch.nn.init.normal_(model.head.final_layer.weight, std=0.1)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    dataset = build_dataset(cfg)
    np.random.seed(1)
    data = model.data_preprocessor(pseudo_collate([dataset[i] for i in (0, 40)]), True)
    inputs, samples = data['inputs'], data['data_samples']
    losses = model(inputs, samples, mode='loss')
    heatmaps = model(inputs, samples, mode='tensor').detach()
    truth = torch.stack([s.gt_fields.heatmaps for s in samples])
    weights = torch.cat([s.gt_instance_labels.keypoint_weights for s in samples])
    assert 0 < weights.sum() < weights.numel()
    expected = sum(
        ((heatmaps[:, j] - truth[:, j]) * weights[:, j, None, None]).square().mean()
        for j in range(17)
    )
    assert losses['loss_kpt'].item() == pytest.approx(expected.item() / 17, rel=1e-4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.update_params(losses['loss_kpt'])
    for name, p in model.named_parameters():
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), f'{name} did not move'
