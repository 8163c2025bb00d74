# SPDX-License-Identifier: Apache-2.0
"""The segmentation configs against the recipe: sizes, decay, learning rates, crops and tests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from ..conftest import ROOT, shared_dir

pytest.importorskip('mmseg', reason='mmsegmentation is not installed; make setup installs it')

SEG = ROOT / 'configs/seg'
FPN = SEG / 'fpn_uniformer_s.py'
UPERNET = SEG / 'upernet_uniformer_s.py'
QUICKSTART = SEG / 'quickstart.py'
# Blocks, those of stage 3, drop path, recomputed blocks of stage 3; recipes 2.5.
ROWS = {
    'fpn_uniformer_s': (18, 8, 0.1, 0),
    'fpn_uniformer_b': (40, 20, 0.2, 0),
    'upernet_uniformer_s': (18, 8, 0.25, 0),
    'upernet_uniformer_b': (40, 20, 0.4, 2),
}
# Windows of four blocks of stage 3 in a row.
ATTENTIONS = {
    '': [None] * 4,
    '_h14': [14, 14, 14, None],
    '_h32': [32, 32, 32, None],
    '_w32': [32] * 4,
}


@pytest.fixture(autouse=True)
def _mmseg_scope():
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def load(path: Path, data_root: Path | str = 'data', **options) -> Config:
    """The config with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data_root))
        cfg = Config.fromfile(path)
    cfg.merge_from_dict({'model.backbone.init_cfg': None, **options})
    return cfg


def build_model(cfg: Config) -> nn.Module:
    from mmengine.model import revert_sync_batchnorm
    from mmseg.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return revert_sync_batchnorm(model)


def outline(cfg: Config) -> nn.Module:
    """The model without memory behind its parameters, for what depends on shapes and names."""
    from mmseg.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.fixture
def ade_root(tmp_path: Path) -> Path:
    """A data root whose ``ade`` is the shared photos; they are all of the validation split."""
    (tmp_path / 'ade').symlink_to(shared_dir('data', 'ade').resolve())
    return tmp_path


AS_TRAINING = {
    'train_dataloader.dataset.data_prefix.img_path': 'images/validation',
    'train_dataloader.dataset.data_prefix.seg_map_path': 'annotations/validation',
}


@pytest.mark.parametrize('path', [FPN, UPERNET, QUICKSTART])
def test_loads_from_any_directory_and_survives_the_dump_that_runner_writes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load(path, '/elsewhere')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/ade/ADEChallengeData2016'
    assert cfg.test_dataloader == cfg.val_dataloader
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


def conv(inputs: int, outputs: int, kernel: int = 1) -> int:
    """Parameters of a convolution with bias."""
    return inputs * outputs * kernel**2 + outputs


def conv_bn(inputs: int, outputs: int, kernel: int = 1) -> int:
    """Parameters of a convolution without bias and its BatchNorm."""
    return inputs * outputs * kernel**2 + 2 * outputs


DIMS = (64, 128, 320, 512)


def test_semantic_fpn_has_the_published_parameters() -> None:
    model = outline(load(FPN))
    neck = sum(conv(dim, 256) for dim in DIMS) + 4 * conv(256, 256, 3)
    # One 3x3 at stride 4, and one, two and three for the coarser maps.
    head = 4 * conv_bn(256, 128, 3) + (0 + 0 + 1 + 2) * conv_bn(128, 128, 3) + conv(128, 150)
    total = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in model.backbone.parameters()) == 21_033_280
    assert total == 21_033_280 + neck + head
    assert round(total / 1e6) == 25


def test_upernet_has_the_published_parameters() -> None:
    model = outline(load(UPERNET))
    pyramid = 4 * conv_bn(512, 512) + conv_bn(512 + 4 * 512, 512, 3)
    laterals = sum(conv_bn(dim, 512) + conv_bn(512, 512, 3) for dim in DIMS[:3])
    head = pyramid + laterals + conv_bn(4 * 512, 512, 3) + conv(512, 150)
    auxiliary = conv_bn(320, 256, 3) + conv(256, 150)
    total = sum(p.numel() for p in model.parameters())
    assert total == 21_033_280 + head + auxiliary
    assert round(total / 1e6) == 52


@pytest.mark.parametrize('attention', ATTENTIONS)
@pytest.mark.parametrize('name', ROWS)
def test_backbone_is_the_recipe_s(name: str, attention: str) -> None:
    blocks, in_stage_3, drop_path, recomputed = ROWS[name]
    backbone = outline(load(SEG / f'{name}{attention}.py')).backbone.train()
    windows = [block.window_size for block in backbone.blocks3]
    assert windows == ATTENTIONS[attention] * (in_stage_3 // 4)
    assert all(block.window_size is None for block in backbone.blocks4)
    rates = [b.drop_path.rate for s in range(1, 5) for b in getattr(backbone, f'blocks{s}')]
    np.testing.assert_allclose(rates, np.linspace(0, drop_path, blocks), atol=1e-7)
    assert backbone.cp_blocks == (0, 0, recomputed, 0)
    assert all(m.training for m in backbone.modules()), 'BatchNorm trains, as published'
    assert all(p.requires_grad for p in backbone.parameters())
    weights = 'small' if name.endswith('_s') else 'base'
    init = Config.fromfile(SEG / f'{name}{attention}.py').model.backbone.init_cfg
    assert init == dict(type='UniFormerPretrained', checkpoint=f'uniformer://{weights}_in1k')


@pytest.mark.parametrize('name', ROWS)
@pytest.mark.parametrize('attention', ['_h32', '_w32'])
def test_other_attention_tests_the_weights_of_the_global_run(name: str, attention: str) -> None:
    trained, tested = load(SEG / f'{name}.py'), load(SEG / f'{name}{attention}.py')
    switch = dict(attention=tested.model.backbone.attention, window_size=32)
    trained.model.backbone.update(switch)
    assert trained._cfg_dict == tested._cfg_dict


def test_weights_of_the_global_run_load_and_windows_change_the_output() -> None:
    from mmseg.registry import MODELS

    thin = dict(depths=(1, 1, 4, 1), dims=(8, 8, 16, 16), head_dim=8)
    # 40 x 33 tokens in stage 3: more than one window of 32.
    image = torch.randn(1, 3, 640, 528, generator=torch.Generator().manual_seed(0))
    trained, maps = None, {}
    for attention in ('', '_h32', '_w32'):
        cfg = load(SEG / f'fpn_uniformer_s{attention}.py')
        cfg.model.backbone.arch = thin
        cfg.model.neck.in_channels = list(thin['dims'])
        torch.manual_seed(len(maps))
        model = MODELS.build(cfg.model).eval()
        if trained is None:
            trained = model.state_dict()
        model.load_state_dict(trained, strict=True)
        with torch.no_grad():
            maps[attention] = model.backbone(image)[2]
    assert (maps['_h32'] - maps['']).abs().max() > 1e-3
    assert (maps['_w32'] - maps['_h32']).abs().max() > 1e-3


def decays(model: nn.Module, cfg: Config) -> dict[str, float]:
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    assert wrapper.clip_grad_kwargs is None
    groups = wrapper.optimizer.param_groups
    assert {group['lr'] for group in groups} == {cfg.optim_wrapper.optimizer.lr}
    found = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    return {name: found.pop(id(p)) for name, p in model.named_parameters()}


def test_semantic_fpn_decays_everything() -> None:
    cfg = load(FPN)
    assert set(decays(outline(cfg), cfg).values()) == {1e-4}
    assert 'paramwise_cfg' not in cfg.optim_wrapper


def test_upernet_decays_all_but_the_backbone_s_norms() -> None:
    cfg = load(UPERNET)
    model = outline(cfg)
    norm_types = nn.LayerNorm | nn.modules.batchnorm._BatchNorm
    free = {
        f'backbone.{module_name}.{name}'
        for module_name, module in model.backbone.named_modules()
        if isinstance(module, norm_types)
        for name, _ in module.named_parameters()
    }
    expected = {name: 0.0 if name in free else 0.01 for name, _ in model.named_parameters()}
    assert decays(model, cfg) == expected
    assert len(free) == 2 * (2 * 18 + 4 + 4), 'two per block, one per embedding, one per output'
    for key in cfg.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name in expected), key


def fpn_rate(iteration: int) -> float:
    """Cosine of mmcv 1 to 1e-8 of the rate, times its linear warm-up from 0.1."""
    base = 2e-4
    floor = base * 1e-8
    rate = floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * iteration / 80_000))
    return rate * (1 - (1 - iteration / 1000) * (1 - 0.1)) if iteration < 1000 else rate


def upernet_rate(iteration: int) -> float:
    """Linear decay of mmcv 1's poly policy to 0, times its linear warm-up from 1e-6."""
    rate = 6e-5 * (1 - iteration / 160_000)
    return rate * (1 - (1 - iteration / 1500) * (1 - 1e-6)) if iteration < 1500 else rate


@pytest.mark.parametrize(
    ('path', 'official', 'iterations'), [(FPN, fpn_rate, 80_000), (UPERNET, upernet_rate, 160_000)]
)
def test_learning_rate_is_mmcv_1_s(path: Path, official, iterations: int) -> None:
    cfg = load(path)
    assert cfg.train_cfg.max_iters == iterations
    lr = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args={'optimizer': optimizer})
        for scheduler in cfg.param_scheduler
    ]
    optimizer.step()
    for iteration in range(iterations):
        if iteration <= 2000 or iteration % 500 == 0 or iteration > iterations - 20:
            # The floor of 1e-8 is added after mmengine's warm-up and before mmcv's.
            expected = pytest.approx(official(iteration), rel=1e-6, abs=1e-8 * lr)
            assert optimizer.param_groups[0]['lr'] == expected, iteration
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize(('path', 'batch', 'interval'), [(FPN, 4, 4000), (UPERNET, 2, 16_000)])
def test_batches_and_evaluation_are_the_recipe_s(path: Path, batch: int, interval: int) -> None:
    cfg = load(path)
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == 8 * batch
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == interval
    assert cfg.val_evaluator.iou_metrics == ['mIoU']
    assert cfg.model.test_cfg.mode == 'whole'
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'


def test_quickstart_fits_the_synthetic_world() -> None:
    from uniformer_mm.synth.scene import CLASSES

    cfg = load(QUICKSTART)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == CLASSES
    assert cfg.model.decode_head.num_classes == len(CLASSES)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters


def test_training_crops_of_real_photos(ade_root: Path) -> None:
    from mmseg.registry import DATASETS

    np.random.seed(0)
    dataset = DATASETS.build(load(FPN, ade_root, **AS_TRAINING).train_dataloader.dataset)
    assert len(dataset.metainfo['classes']) == 150
    crop = next(t for t in dataset.pipeline.transforms if type(t).__name__ == 'RandomCrop')
    assert crop.cat_max_ratio == 0.75
    for _ in range(3):
        for sample in dataset:
            labels = sample['data_samples'].gt_sem_seg.data
            assert max(sample['inputs'].shape[1:]) <= 512
            assert labels.shape[1:] == sample['inputs'].shape[1:]
            values, counts = labels[labels != 255].unique(return_counts=True)
            assert values.max() < 150
            assert counts.max() / counts.sum() < 0.75 or len(values) == 1


def test_labels_are_shifted_and_other_is_ignored(ade_root: Path) -> None:
    import cv2
    from mmseg.registry import DATASETS

    dataset = DATASETS.build(load(FPN, ade_root).val_dataloader.dataset)
    for sample in dataset:
        raw = cv2.imread(sample['data_samples'].seg_map_path, cv2.IMREAD_UNCHANGED).astype(int)
        labels = sample['data_samples'].gt_sem_seg.data[0].numpy().astype(int)
        assert np.array_equal(labels, np.where(raw == 0, 255, raw - 1))


def test_only_semantic_fpn_stretches_test_images_to_multiples_of_32(ade_root: Path) -> None:
    from mmseg.registry import DATASETS

    aligned, plain = (
        DATASETS.build(load(path, ade_root).val_dataloader.dataset) for path in (FPN, UPERNET)
    )
    for index in range(3):
        height, width = plain[index]['data_samples'].ori_shape
        ratio = min(2048 / max(height, width), 512 / min(height, width))
        kept = tuple(int(side * ratio + 0.5) for side in (height, width))
        assert plain[index]['inputs'].shape[1:] == kept
        assert aligned[index]['inputs'].shape[1:] == tuple(math.ceil(s / 32) * 32 for s in kept)


def test_multi_scale_testing_has_six_scales_and_flips(ade_root: Path) -> None:
    from mmseg.registry import DATASETS

    cfg = load(UPERNET, ade_root)
    cfg.val_dataloader.dataset.pipeline = cfg.tta_pipeline
    sample = DATASETS.build(cfg.val_dataloader.dataset)[0]
    short_sides = [min(image.shape[1:]) for image in sample['inputs']]
    assert sorted(short_sides) == sorted([256, 384, 512, 640, 768, 896] * 2)
    assert sum(s.flip for s in sample['data_samples']) == 6


@pytest.mark.parametrize('path', [FPN, UPERNET, QUICKSTART])
def test_one_step_on_real_photos_is_finite_and_reaches_every_parameter(
    path: Path, ade_root: Path
) -> None:
    options = {
        **AS_TRAINING,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.pipeline.3.crop_size': (48, 48),
        'model.data_preprocessor.size': (64, 64),
        'model.backbone.drop_path_rate': 0.0,
    }
    cfg = load(path, ade_root, **options)
    model = build_model(cfg).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(loader)), training=True)
    assert data['inputs'].shape == (2, 3, 64, 64)
    labels = torch.stack([s.gt_sem_seg.data for s in data['data_samples']])
    assert (labels[..., 48:] == 255).all(), 'padding is ignored'
    total, _ = model.parse_losses(model(**data, mode='loss'))
    assert torch.isfinite(total)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.backward(total)
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, 'DDP would wait for these for ever'
    wrapper.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    moved = sum(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert moved > 0.9 * len(before)
