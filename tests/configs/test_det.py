# SPDX-License-Identifier: Apache-2.0
"""The detection configs against the recipe: sizes, decay and learning rates from its formulas."""

from __future__ import annotations

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

pytest.importorskip('mmdet', reason='mmdet is not installed; make setup installs it')

DET = ROOT / 'configs/det'
REAL = DET / 'mask_rcnn_uniformer_s.py'
QUICKSTART = DET / 'quickstart.py'
# Blocks, those of stage 3, drop path, recomputed blocks of stage 3; recipes 2.4.
ROWS = {
    'mask_rcnn_uniformer_s': (18, 8, 0.2, 8),
    'mask_rcnn_uniformer_b': (40, 20, 0.3, 0),
    'mask_rcnn_uniformer_s_3x_ms': (18, 8, 0.1, 8),
    'mask_rcnn_uniformer_b_3x_ms': (40, 20, 0.3, 20),
    'cascade_mask_rcnn_uniformer_s_3x_ms': (18, 8, 0.2, 8),
    'cascade_mask_rcnn_uniformer_b_3x_ms': (40, 20, 0.4, 20),
}


@pytest.fixture(autouse=True)
def _mmdet_scope():
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def load(path: Path = REAL, data_root: Path | str = 'data') -> Config:
    """The config with random weights and without the fp16 that needs a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data_root))
        cfg = Config.fromfile(path)
    cfg.merge_from_dict({'model.backbone.init_cfg': None, 'optim_wrapper.type': 'OptimWrapper'})
    return cfg


def build_model(cfg: Config) -> nn.Module:
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def outline(cfg: Config) -> nn.Module:
    """The model without memory behind its parameters, for what depends on shapes and names."""
    from mmdet.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """A data root whose ``coco`` is the shared photos."""
    (tmp_path / 'coco').symlink_to(shared_dir('data', 'coco').resolve())
    return tmp_path


@pytest.mark.parametrize('path', [REAL, QUICKSTART])
def test_loads_from_any_directory_and_survives_the_dump_that_runner_writes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load(path, '/elsewhere')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/coco/'
    assert cfg.test_evaluator.ann_file == '/elsewhere/coco/annotations/instances_val2017.json'
    assert cfg.test_dataloader == cfg.val_dataloader
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


def test_default_data_root_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('UNIFORMER_DATA', raising=False)
    assert Config.fromfile(REAL).train_dataloader.dataset.data_root == 'data/coco/'


def test_parameters_are_those_of_the_published_model() -> None:
    model = outline(load())
    dims, fpn, classes = (64, 128, 320, 512), 256, 80

    def layer(inputs: int, outputs: int, kernel: int = 1) -> int:
        return inputs * outputs * kernel**2 + outputs

    neck = sum(layer(dim, fpn) for dim in dims) + 4 * layer(fpn, fpn, 3)
    anchors = 3
    rpn = layer(fpn, fpn, 3) + layer(fpn, anchors) + layer(fpn, 4 * anchors)
    box = layer(fpn * 7 * 7, 1024) + layer(1024, 1024)
    box += layer(1024, classes + 1) + layer(1024, 4 * classes)
    mask = 4 * layer(fpn, fpn, 3) + layer(fpn, fpn, 2) + layer(fpn, classes)

    total = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in model.backbone.parameters()) == 21_033_280
    assert total == 21_033_280 + neck + rpn + box + mask
    assert round(total / 1e6) == 41
    assert all(p.requires_grad for p in model.parameters()), 'the recipe freezes nothing'


@pytest.mark.parametrize('name', ROWS)
def test_backbone_is_the_recipe_s(name: str) -> None:
    blocks, in_stage_3, drop_path, recomputed = ROWS[name]
    backbone = outline(load(DET / f'{name}.py')).backbone
    windows = [block.window_size for block in backbone.blocks3]
    assert windows == [14, 14, 14, None] * (in_stage_3 // 4), 'every fourth block is global'
    assert all(block.window_size is None for block in backbone.blocks4)
    rates = [b.drop_path.rate for s in range(1, 5) for b in getattr(backbone, f'blocks{s}')]
    np.testing.assert_allclose(rates, np.linspace(0, drop_path, blocks), atol=1e-7)
    assert backbone.cp_blocks == (0, 0, recomputed, 0)
    weights = 'small' if '_s' in name.removeprefix('cascade_mask_rcnn') else 'base'
    init = Config.fromfile(DET / f'{name}.py').model.backbone.init_cfg
    assert init == dict(type='UniFormerPretrained', checkpoint=f'uniformer://{weights}_in1k')
    backbone.train()
    assert all(m.training for m in backbone.modules()), 'BatchNorm trains, as published'


def test_the_eight_blocks_of_stage_3_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    from uniformer_mm.models import checkpointing

    backbone = build_model(load()).backbone.train()
    seen = []

    def spy(block, x, **kwargs):
        seen.append(block)
        return block(x)

    monkeypatch.setattr(checkpointing, 'checkpoint', spy)
    backbone(torch.randn(1, 3, 64, 64))
    assert seen == list(backbone.blocks3)


def test_regions_are_read_where_they_lie() -> None:
    """mmcv's RoIAlign takes every map for NCHW; in another memory layout it reads other pixels."""
    from torchvision.ops import roi_align

    model = build_model(load(QUICKSTART)).eval()
    extractor = model.roi_head.bbox_roi_extractor
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(2, 3, 96, 128))
        rois = torch.tensor([[0, 10.0, 20.0, 60.0, 50.0], [1, 30.0, 0.0, 90.0, 80.0]])
        found = extractor(maps[:4], rois)
        # Boxes below 112 pixels are read from stride 4.
        expected = roi_align(maps[0].contiguous(), rois, (7, 7), 1 / 4, 2, aligned=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_norms_do_not_decay() -> None:
    cfg = load()
    model = outline(cfg)
    norms = [
        m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)
    ]
    free = {id(p) for norm in norms for p in norm.parameters()}
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    assert set(decay) == {id(p) for p in model.parameters()}
    wrong = [
        name
        for name, p in model.named_parameters()
        if decay[id(p)] != (0.0 if id(p) in free else 0.05)
    ]
    assert free
    assert not wrong
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {1e-4}
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    assert wrapper.clip_grad_kwargs is None
    for key in cfg.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name, _ in model.named_parameters()), key


def test_fp16_with_dynamic_loss_scale() -> None:
    import inspect

    from mmengine.optim import AmpOptimWrapper

    published = Config.fromfile(REAL).optim_wrapper
    assert published.type == 'AmpOptimWrapper'
    assert 'loss_scale' not in published, 'type=OptimWrapper must be all that fp32 needs'
    assert inspect.signature(AmpOptimWrapper).parameters['loss_scale'].default == 'dynamic'


@pytest.mark.parametrize(
    ('name', 'epochs', 'steps'),
    [('mask_rcnn_uniformer_b', 12, (8, 11)), ('mask_rcnn_uniformer_s_3x_ms', 36, (27, 33))],
)
def test_learning_rate_is_mmcv_1_s_at_every_iteration(
    name: str, epochs: int, steps: tuple[int, int]
) -> None:
    """Warm-up over 500 iterations from 0.001, times 0.1 from the given epochs (from 0) on."""
    cfg = load(DET / f'{name}.py')
    assert cfg.train_cfg.max_epochs == epochs
    iterations_per_epoch = 601
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args={'optimizer': optimizer})
        for scheduler in cfg.param_scheduler
    ]
    for iteration in range(epochs * iterations_per_epoch):
        epoch = iteration // iterations_per_epoch
        expected = 1e-4 * 0.1 ** sum(epoch >= step for step in steps)
        if iteration < 500:
            expected *= 1 - (1 - iteration / 500) * (1 - 0.001)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-9), iteration
        optimizer.step()
        last = (iteration + 1) % iterations_per_epoch == 0
        for scheduler in schedulers:
            if not scheduler.by_epoch or last:
                scheduler.step()


def test_batches_and_evaluation_are_the_recipe_s() -> None:
    cfg = load()
    assert 8 * cfg.train_dataloader.batch_size == 16 == cfg.auto_scale_lr.base_batch_size
    assert cfg.train_cfg.val_interval == 1
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == 1000
    assert cfg.model.test_cfg.rpn.max_per_img == 1000
    assert cfg.model.test_cfg.rcnn.max_per_img == 100


def test_quickstart_fits_the_synthetic_world() -> None:
    from uniformer_mm.synth.detection import CLASSES, TASK

    cfg = Config.fromfile(QUICKSTART)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == CLASSES
    assert cfg.model.roi_head.mask_head.num_classes == len(CLASSES)
    iterations = TASK.counts['small']['train'] // cfg.train_dataloader.batch_size
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs * iterations
    assert cfg.model.backbone.get('init_cfg') is None
    assert cfg.optim_wrapper.type == 'OptimWrapper', 'fp16 would need a GPU'


def test_training_pipeline_on_real_photos(coco_root: Path) -> None:
    from mmdet.registry import DATASETS

    torch.manual_seed(0)
    np.random.seed(0)
    dataset = DATASETS.build(load(REAL, coco_root).train_dataloader.dataset)
    flipped = []
    for index in range(0, 24, 3):
        sample = dataset[index]
        meta = sample['data_samples'].metainfo
        height, width = sample['inputs'].shape[1:]
        ratio = min(1333 / max(meta['ori_shape']), 800 / min(meta['ori_shape']))
        assert (height, width) == tuple(int(side * ratio + 0.5) for side in meta['ori_shape'])
        truth = sample['data_samples'].gt_instances
        boxes = truth.bboxes.tensor
        assert len(boxes) == len(truth.masks) == len(truth.labels) > 0
        assert boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
        assert (truth.masks.height, truth.masks.width) == (height, width)
        flipped.append(meta['flip'])
    assert {True, False} == set(flipped)


@pytest.mark.parametrize('path', [REAL, QUICKSTART])
def test_one_step_on_real_photos_is_finite_and_reaches_every_parameter(
    path: Path, coco_root: Path
) -> None:
    cfg = load(path, coco_root)
    cfg.merge_from_dict(
        {
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_size': 2,
            'train_dataloader.dataset.pipeline.2.scale': (160, 128),
            'train_dataloader.dataset.metainfo': None,
            'model.roi_head.bbox_head.num_classes': 80,
            'model.roi_head.mask_head.num_classes': 80,
            'model.train_cfg.rcnn.sampler.num': 32,
            'model.backbone.drop_path_rate': 0.0,
        }
    )
    model = build_model(cfg).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    data = model.data_preprocessor(next(iter(loader)), training=True)
    assert all(side % 32 == 0 for side in data['inputs'].shape[-2:])
    losses = model(**data, mode='loss')
    assert set(losses) >= {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'}
    total, _ = model.parse_losses(losses)
    assert torch.isfinite(total)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper.backward(total)
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without, 'DDP would wait for these for ever'
    wrapper.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    moved = sum(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert moved > 0.9 * len(before)
