# SPDX-License-Identifier: Apache-2.0
"""The classification configs against the recipe, with timm's and DeiT's formulas recomputed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, DefaultScope
from PIL import Image, ImageEnhance, ImageOps
from torch.nn.functional import log_softmax

from uniformer_mm import create_model

from ..conftest import ROOT, shared_dir

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed; make setup installs it')

REAL = ROOT / 'configs/cls/uniformer_s_in1k.py'
QUICKSTART = ROOT / 'configs/cls/quickstart.py'
# exp/*/run.sh of the official image_classification: arch, lr before scaling, stochastic depth.
ROWS = {
    's': ('small', 5e-4, 0.1),
    's_plus': ('small_plus', 5e-4, 0.1),
    's_plus_dim64': ('small_plus_dim64', 5e-4, 0.1),
    'b': ('base', 4e-4, 0.3),
    'b_ls': ('base_ls', 4e-4, 0.3),
}
MEAN_RGB = np.array([123.675, 116.28, 103.53])
STD_RGB = np.array([58.395, 57.12, 57.375])


@pytest.fixture(autouse=True)
def _mmpretrain_scope():
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def load(path: Path, data_root: Path | str = 'data') -> Config:
    """The config without the fp16 that needs a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data_root))
        cfg = Config.fromfile(path)
    cfg.optim_wrapper.type = 'OptimWrapper'
    return cfg


def build_model(cfg: Config) -> torch.nn.Module:
    from mmpretrain.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def build_dataset(dataset_cfg: dict):
    """One of the config's data sets, for the ten classes that the shared photos show."""
    from mmpretrain.registry import DATASETS

    folder = Path(dataset_cfg['data_root'], dataset_cfg['split'])
    classes = sorted(path.name for path in folder.iterdir())
    return DATASETS.build(dict(dataset_cfg, metainfo=dict(classes=classes)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data root whose ``imagenet`` is the shared photos of ten classes."""
    (tmp_path / 'imagenet').symlink_to(shared_dir('data', 'imagenette').resolve())
    return tmp_path


@pytest.mark.parametrize('path', [REAL, QUICKSTART])
def test_loads_and_survives_a_dump_from_any_directory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = load(path, '/elsewhere')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/imagenet'
    assert cfg.test_dataloader == cfg.val_dataloader
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py')._cfg_dict == cfg._cfg_dict


@pytest.mark.parametrize('row', ROWS)
def test_the_row_of_the_recipe(row: str) -> None:
    arch, lr, drop_path = ROWS[row]
    cfg = Config.fromfile(ROOT / f'configs/cls/uniformer_{row}_in1k.py')
    assert cfg.model.backbone == dict(
        type='uniformer_mm.UniFormer2d',
        arch=arch,
        out_indices=(3,),
        out_norm='bn',
        drop_path_rate=drop_path,
    )
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.optim_wrapper.optimizer.lr == lr * 1024 / 512
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.total == 300
    assert (cfg.train_dataloader.batch_size, cfg.val_dataloader.batch_size) == (128, 192)
    assert cfg.auto_scale_lr.base_batch_size == 1024
    (crop,) = [t for t in cfg.train_pipeline if t.type == 'RandomResizedCrop']
    assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == (224, (0.08, 1.0), 'bicubic')
    assert crop.backend == 'pillow'


@pytest.mark.parametrize('where', ['attention', 'all'])
def test_only_one_dimensional_residual_scales_do_not_decay(where: str) -> None:
    """DeiT's rule goes by shape: (C,) in attention blocks, (1, C, 1, 1) in convolution blocks."""
    cfg = load(ROOT / 'configs/cls/uniformer_b_ls_in1k.py')
    cfg.model.backbone.arch = dict(
        depths=(1, 1, 2, 1),
        dims=(8, 8, 32, 32),
        head_dim=16,
        layer_scale=1e-6,
        layer_scale_in=where,
    )
    cfg.model.head.in_channels = 32
    model = build_model(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    scales = {n: decay[id(p)] for n, p in model.named_parameters() if '.gamma_' in n}
    attention = {
        n: d for n, d in scales.items() if n.startswith(('backbone.blocks3', 'backbone.blocks4'))
    }
    assert len(attention) == 2 * 3
    assert set(attention.values()) == {0.0}
    convolution = {n: d for n, d in scales.items() if n not in attention}
    assert len(convolution) == (2 * 2 if where == 'all' else 0)
    assert set(convolution.values()) <= {0.05}
    assert decay[id(model.backbone.blocks1[0].pos_embed.weight)] == 0.05


def test_keys_are_official_and_flat_parameters_do_not_decay() -> None:
    """Names and shapes of the released classifier; DeiT's rule, parameter by parameter."""
    cfg = load(REAL)
    model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == 21_545_256
    official = {k: v.shape for k, v in create_model('uniformer_small').state_dict().items()}
    renamed = {
        k.removeprefix('backbone.').replace('head.fc.', 'head.'): v.shape
        for k, v in model.state_dict().items()
        if not k.startswith('data_preprocessor')
    }
    assert renamed == official

    names = {id(p): name for name, p in model.named_parameters()}
    decay = {}
    for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups:
        assert (group['lr'], group['betas'], group['eps']) == (1e-3, (0.9, 0.999), 1e-8)
        decay |= {names[id(p)]: group['weight_decay'] for p in group['params']}
    expected = {
        name: 0.0 if p.ndim == 1 or name.endswith('.bias') else 0.05
        for name, p in model.named_parameters()
    }
    assert decay == expected
    assert decay['backbone.blocks1.0.pos_embed.weight'] == 0.05


def test_head_starts_from_a_truncated_normal() -> None:
    fc = build_model(load(REAL)).head.fc
    assert fc.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert not fc.bias.any()


def timm_rate(t: int, lr: float = 1e-3, epochs: int = 300, warmup: int = 5) -> float:
    """timm's cosine without the warm-up as prefix; see recipes 2.1."""
    if t < warmup:
        return 1e-6 + t * (lr - 1e-6) / warmup
    return 1e-5 + 0.5 * (lr - 1e-5) * (1 + math.cos(math.pi * t / epochs))


def test_rates_come_one_epoch_late() -> None:
    """DeiT's loop: the optimizer starts at f(0); after epoch e the rate becomes f(e)."""
    cfg = load(REAL)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler), default_args=dict(optimizer=optimizer)
    )
    assert scheduler.by_epoch
    rates = []
    for _ in range(300):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    expected = [timm_rate(0)] + [timm_rate(e) for e in range(299)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert rates[:2] == [1e-6, 1e-6]


def test_rates_go_on_after_a_resume() -> None:
    cfg = load(REAL)
    args = dict(cfg.param_scheduler)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    build = lambda: PARAM_SCHEDULERS.build(dict(args), default_args=dict(optimizer=optimizer))  # noqa: E731
    first = build()
    optimizer.step()
    for _ in range(40):
        first.step()
    second = build()
    second.load_state_dict(first.state_dict())
    second.step()
    assert optimizer.param_groups[0]['lr'] == pytest.approx(timm_rate(40), rel=1e-12)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (dict(warmup=300), 'warmup=300'),
        (dict(lag=-1), 'lag=-1'),
        (dict(cosine_begin=6), 'cosine_begin=6 must be at least 0 and at most warmup=5'),
    ],
)
def test_impossible_schedules_are_refused(args: dict, message: str) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = dict(load(REAL).param_scheduler, **args)
    with pytest.raises(ValueError, match=message):
        PARAM_SCHEDULERS.build(schedule, default_args=dict(optimizer=optimizer))


def deit_indices(length: int, gpus: int, rank: int, seed: int) -> list[int]:
    """DeiT's repeated-augmentation sampler (image_classification/samplers.py)."""
    shuffled = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    copies = shuffled.repeat_interleave(3)
    total = math.ceil(length * 3 / gpus) * gpus
    copies = torch.cat([copies, copies[: total - len(copies)]])
    return copies[rank::gpus][: length // 256 * 256 // gpus].tolist()


def test_an_epoch_holds_the_official_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet's 1,281,167 images on 8 GPUs: DeiT's indices, in its 1251 batches per GPU."""
    from mmpretrain.datasets.samplers import repeat_aug
    from mmpretrain.registry import DATA_SAMPLERS

    cfg = load(REAL)
    length, rank, epoch = 1_281_167, 3, 2
    monkeypatch.setattr(repeat_aug, 'get_dist_info', lambda: (rank, 8))
    sampler = DATA_SAMPLERS.build(
        dict(cfg.train_dataloader.sampler), default_args=dict(dataset=range(length), seed=0)
    )
    sampler.set_epoch(epoch)
    batches = torch.utils.data.BatchSampler(
        sampler, cfg.train_dataloader.batch_size, cfg.train_dataloader.drop_last
    )
    assert len(batches) == 1251
    assert [i for batch in batches for i in batch] == deit_indices(length, 8, rank, epoch)


def randaug_ops(level: float) -> dict[str, object]:
    """The config's operations at one level, always applied and never negated."""
    from mmpretrain.registry import TRANSFORMS

    cfg = copy.deepcopy(load(REAL).rand_augment)
    assert (cfg.magnitude_level, cfg.magnitude_std, cfg.total_level) == (9, 0.5, 10)
    assert (cfg.num_policies, list(cfg.hparams.pad_val)) == (2, [104, 116, 124])
    transform = TRANSFORMS.build(dict(cfg, magnitude_level=level, magnitude_std=0.0))
    ops = {}
    for op in transform.transforms:
        assert op.prob == 0.5
        op.prob, op.random_negative_prob = 1.0, 0.0
        direction = getattr(op, 'direction', '')
        ops[type(op).__name__ + direction] = op
    return ops


@pytest.mark.parametrize('level', [0.0, 3.3, 8.7, 9.0, 10.0])
def test_randaugment_is_timms_increasing_set(level: float) -> None:
    """15 operations with timm's ranges, compared with PIL doing timm's arithmetic."""
    ops = randaug_ops(level)
    rng = np.random.RandomState(0)
    image = rng.randint(0, 256, (40, 50, 3), dtype=np.uint8)
    image[:20] = image[:20] // 3 + 60
    rgb = Image.fromarray(image[..., ::-1].copy())

    def apply(name: str) -> np.ndarray:
        return ops[name].transform(dict(img=image.copy()))['img'][..., ::-1].astype(int)

    bits = 4 - int(level / 10 * 4)
    np.testing.assert_array_equal(
        apply('Posterize'), np.asarray(rgb).astype(int) // 2 ** (8 - bits) * 2 ** (8 - bits)
    )
    solarized = ImageOps.solarize(rgb, 256 - int(level / 10 * 256))
    np.testing.assert_array_equal(apply('Solarize'), np.asarray(solarized))
    plain = np.asarray(rgb).astype(int)
    added = np.where(plain < 128, np.minimum(plain + int(level / 10 * 110), 255), plain)
    np.testing.assert_array_equal(apply('SolarizeAdd'), added)
    np.testing.assert_array_equal(apply('Invert'), 255 - plain)
    np.testing.assert_allclose(apply('AutoContrast'), ImageOps.autocontrast(rgb), atol=1)
    factor = 1 + level / 10 * 0.9
    for name, enhance in (
        ('ColorTransform', ImageEnhance.Color),
        ('Contrast', ImageEnhance.Contrast),
        ('Brightness', ImageEnhance.Brightness),
    ):
        np.testing.assert_allclose(apply(name), enhance(rgb).enhance(factor), atol=3)
    for name, largest in (
        ('Rotate', 30),
        ('Shearhorizontal', 0.3),
        ('Shearvertical', 0.3),
        ('Translatehorizontal', 0.45),
        ('Translatevertical', 0.45),
    ):
        assert ops[name].random_magnitude() == pytest.approx(level / 10 * largest)
        assert ops[name].interpolation == 'bicubic'
        assert ops[name].pad_val == (104, 116, 124)
    assert set(ops) - {'Equalize', 'Sharpness'} == {
        *('Posterize', 'Solarize', 'SolarizeAdd', 'Invert', 'AutoContrast'),
        *('ColorTransform', 'Contrast', 'Brightness', 'Rotate'),
        *('Shearhorizontal', 'Shearvertical', 'Translatehorizontal', 'Translatevertical'),
    }
    assert len(ops) == 15


def test_erasing_is_normal_noise_in_a_quarter_of_the_images() -> None:
    """Share, areas 2 to 33 %, and unit noise after normalisation (clipped to 0..255 here)."""
    from mmpretrain.registry import TRANSFORMS

    transform = TRANSFORMS.build(dict(load(REAL).random_erasing))
    np.random.seed(0)
    areas, noise = [], []
    for _ in range(2000):
        image = np.full((64, 64, 3), 7, np.uint8)
        image = transform.transform(dict(img=image))['img']
        changed = (image != 7).any(-1)
        if changed.any():
            areas.append(changed.mean())
            noise.append((image[changed][:, ::-1] - MEAN_RGB) / STD_RGB)
    assert len(areas) / 2000 == pytest.approx(0.25, abs=0.04)
    assert min(areas) > 0.015
    assert max(areas) < 0.35
    pixels = np.concatenate(noise)
    draws = np.random.RandomState(0).randn(200_000, 3) * STD_RGB + MEAN_RGB
    clipped = (draws.clip(0, 255) - MEAN_RGB) / STD_RGB
    np.testing.assert_allclose(pixels.mean(0), clipped.mean(0), atol=0.02)
    np.testing.assert_allclose(pixels.std(0), clipped.std(0), atol=0.02)


def flat_images(num: int) -> torch.Tensor:
    """Images of one grey each, raw values 20, 60, 100, ... in BGR uint8."""
    return torch.arange(num)[:, None, None, None].mul(40).add(20).expand(-1, 3, 32, 32)


def mixed_batches(cfg: Config, seeds: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The preprocessor's training batches of flat images: pixels in 0..255 RGB, scores."""
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    preprocessor = build_model(cfg).data_preprocessor
    assert type(preprocessor) is MODELS.get('ClsDataPreprocessor')
    for seed in seeds:
        np.random.seed(seed)
        torch.manual_seed(seed)
        samples = [DataSample().set_gt_label(3 * i) for i in range(4)]
        data = dict(inputs=list(flat_images(4).to(torch.uint8)), data_samples=samples)
        batch = preprocessor(data, training=True)
        std, mean = torch.tensor(STD_RGB)[:, None, None], torch.tensor(MEAN_RGB)[:, None, None]
        scores = torch.stack([sample.gt_score for sample in batch['data_samples']])
        yield batch['inputs'] * std + mean, scores


def test_mixing_and_smoothing_are_timms_arithmetic() -> None:
    """Greys tell what was mixed; targets and loss follow with on = 0.9 + 0.1 / K, off = 0.1 / K."""
    cfg = load(REAL)
    cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), head_dim=8)
    cfg.model.head.in_channels = 8
    model = build_model(cfg)
    greys = flat_images(4)[:, 0, 0, 0].double()
    off, on = 0.1 / 1000, 0.9 + 0.1 / 1000
    smoothed = torch.full((1000, 1000), off).fill_diagonal_(on)
    shares = {'mixup': [], 'cutmix': []}
    for pixels, scores in mixed_batches(cfg, range(200)):
        expected = torch.zeros(4, 1000, dtype=torch.float64)
        cut = any(image[0].max() - image[0].min() > 1 for image in pixels)
        for i, image in enumerate(pixels):
            partner = (scores[i] > 0).nonzero().flatten() // 3
            others = [int(p) for p in partner if p != i]
            j = others[0] if others else i
            own = 1.0 if i == j else ((image.mean() - greys[j]) / (greys[i] - greys[j])).item()
            expected[i, 3 * i] += own
            expected[i, 3 * j] += 1 - own
            if i != j:
                shares['cutmix' if cut else 'mixup'].append(own)
        torch.testing.assert_close(scores.double(), expected, atol=2e-3, rtol=0)

        logits = torch.randn(4, 1000)
        by_hand = -(scores @ smoothed * log_softmax(logits, -1)).sum(-1).mean()
        torch.testing.assert_close(model.head.loss_module(logits, scores), by_hand)
    mixed, cut = np.array(shares['mixup']), np.array(shares['cutmix'])
    assert len(mixed) / (len(mixed) + len(cut)) == pytest.approx(0.5, abs=0.1)
    assert mixed.mean() == pytest.approx(0.5, abs=0.1)
    assert mixed.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.25)
    kept = [timm_cutmix_share(np.random.RandomState(seed), 32) for seed in range(2000)]
    assert cut.mean() == pytest.approx(np.mean(kept), abs=0.1)


def timm_cutmix_share(rng: np.random.RandomState, side: int) -> float:
    """The own share of an image after timm's box: uniform lambda, centre anywhere, clipped."""
    half = int(side * math.sqrt(1 - rng.beta(1, 1))) // 2
    centre = rng.randint(0, side, 2)
    extent = (centre + half).clip(0, side) - (centre - half).clip(0, side)
    return 1 - extent.prod() / side**2


def test_train_and_test_pipelines_on_real_photos(photos: Path) -> None:
    """Classes by folder; testing is the bicubic resize to 256 and the centre crop of PIL."""
    cfg = load(REAL, photos)
    train = build_dataset(cfg.train_dataloader.dataset)
    np.random.seed(0)
    for index in range(0, len(train), 250):
        packed = train[index]
        assert packed['inputs'].shape == (3, 224, 224)
        folder = Path(train.get_data_info(index)['img_path']).parent.name
        assert train.CLASSES[int(packed['data_samples'].gt_label)] == folder
    val = build_dataset(cfg.test_dataloader.dataset)
    for index in range(0, len(val), 100):
        image = Image.open(val.get_data_info(index)['img_path']).convert('RGB')
        short = min(image.size)
        image = image.resize([side * 256 // short for side in image.size], Image.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        expected = np.asarray(image.crop((left, top, left + 224, top + 224))).astype(int)
        found = val[index]['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        assert np.abs(found - expected).mean() < 1


def test_average_is_tracked_beside_the_raw_model() -> None:
    """Parameters and buffers by recursion; evaluation, checkpoint and resume keep the model raw."""
    from mmengine.model import BaseModel

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.norm(inputs)

    (args,) = load(REAL).custom_hooks
    assert args['momentum'] == pytest.approx(4e-5)
    torch.manual_seed(0)
    runner = SimpleNamespace(model=Model(), iter=0, epoch=0, _resume=True)
    hook = HOOKS.build(dict(args, momentum=0.25))
    hook.before_run(runner)
    expected = None
    for step in range(5):
        runner.iter = step
        runner.model(torch.randn(8, 3) * (step + 1))
        torch.nn.init.normal_(runner.model.norm.weight)
        hook.after_train_iter(runner, step)
        now = {k: v.clone() for k, v in runner.model.state_dict().items()}
        keep = expected or now
        expected = {
            k: 0.75 * keep[k] + 0.25 * now[k] if now[k].is_floating_point() else keep[k]
            for k in now
        }
    for before, after in (('val', 'val'), ('test', 'test')):
        getattr(hook, f'before_{before}_epoch')(runner)
        torch.testing.assert_close(dict(runner.model.state_dict()), now)
        getattr(hook, f'after_{after}_epoch')(runner)
    checkpoint = dict(state_dict=runner.model.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    average = {
        k.removeprefix('module.'): v
        for k, v in checkpoint['ema_state_dict'].items()
        if k.startswith('module.')
    }
    torch.testing.assert_close(dict(checkpoint['state_dict']), now)
    torch.testing.assert_close(average, expected)

    resumed = SimpleNamespace(model=Model(), iter=5, epoch=0, _resume=True)
    again = HOOKS.build(dict(args, momentum=0.25))
    again.before_run(resumed)
    again.after_load_checkpoint(resumed, copy.deepcopy(checkpoint))
    torch.testing.assert_close(dict(again.ema_model.module.state_dict()), expected)


def test_one_step_on_real_photos(photos: Path) -> None:
    """A real batch gives a finite loss near log(classes) and moves every parameter."""
    from mmengine.dataset import default_collate

    cfg = load(REAL, photos)
    cfg.model.backbone.drop_path_rate = 0.0
    model = build_model(cfg).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    dataset = build_dataset(cfg.train_dataloader.dataset)
    np.random.seed(0)
    data = default_collate([dataset[i] for i in (0, 300, 600, 900)])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train_step(data, wrapper)
    assert losses['loss'].item() == pytest.approx(math.log(1000), rel=0.1)
    for name, p in model.named_parameters():
        assert torch.isfinite(p).all(), name
        assert not torch.equal(p, before[name]), f'{name} did not move'
