# SPDX-License-Identifier: Apache-2.0
"""The test configs of token labelling: network, weights, images and scores, for every row."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_checkpoint
from PIL import Image

from uniformer_mm import create_model
from uniformer_mm.models import ARCHS
from uniformer_mm.weights import resolve
from uniformer_mm.weights.zoo import find_row

from ..conftest import ROOT, shared_dir
from ..weights.helpers import cheap_file, save

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed; make setup installs it')

# exp/*/test.sh: arch, pixels, images per batch. Parameters with both heads: recipes 1.1.
ROWS = {
    's_tl_224': ('small_tl', 224, 128, 22_058_256),
    's_plus_tl_224': ('small_plus_tl', 224, 128, 24_545_552),
    'b_tl_224': ('base_tl', 224, 128, 50_289_552),
    'l_ls_tl_224': ('large_ls_tl', 224, 128, 100_103_888),
    's_tl_dim64_224': ('small_tl_dim64', 224, 128, 22_058_256),
    's_plus_tl_dim64_224': ('small_plus_tl_dim64', 224, 128, 24_545_552),
    'b_tl_dim64_224': ('base_tl_dim64', 224, 128, 50_289_552),
    's_tl_384': ('small_tl', 384, 64, 22_058_256),
    's_plus_tl_384': ('small_plus_tl', 384, 64, 24_545_552),
    'b_tl_384': ('base_tl', 384, 64, 50_289_552),
    'l_ls_tl_384': ('large_ls_tl', 384, 32, 100_103_888),
}
NORMALISATIONS = {
    '': ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    '_mean05': ([127.5] * 3, [127.5] * 3),
}


@pytest.fixture(autouse=True)
def _mmpretrain_scope():
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """The folder that ``uniformer://`` names are looked for in; any file is taken for a row's."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(folder))

    def row_of_any_hash(name: str):
        row = find_row(name)
        return replace(
            row, mirrors=tuple(replace(h, md5='', sha256_prefix='') for h in row.mirrors)
        )

    monkeypatch.setattr(resolve, 'find_row', row_of_any_hash)
    return folder


def load(row: str, data_root: Path | str = 'data') -> Config:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('UNIFORMER_DATA', str(data_root))
        return Config.fromfile(ROOT / f'configs/cls/uniformer_{row}.py')


def build_model(cfg: Config) -> torch.nn.Module:
    from mmpretrain.registry import MODELS

    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize('normalisation', NORMALISATIONS)
@pytest.mark.parametrize('row', ROWS)
def test_the_row_of_the_recipe(row: str, normalisation: str) -> None:
    arch, size, batch, params = ROWS[row]
    cfg = load(row + normalisation)
    mean, std = NORMALISATIONS[normalisation]
    assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std) == (mean, std)
    assert cfg.model.data_preprocessor.to_rgb
    with torch.device('meta'):
        model = build_model(cfg)
    assert model.backbone.arch == ARCHS[arch]
    published = find_row(cfg.load_from)
    assert (published.arch, published.size) == (arch, str(size))
    assert model.backbone.arch.head_dim == (64 if 'dim64' in row or 'l_ls' in row else 32)
    assert sum(p.numel() for p in model.parameters()) == params
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.batch_size == batch
        resize, crop = loader.dataset.pipeline[1:3]
        # timm: floor(size / crop_pct).
        assert resize['scale'] == math.floor(size / 0.9) == {224: 248, 384: 426}[size]
        assert (resize['edge'], resize['interpolation']) == ('short', 'bicubic')
        assert (resize['backend'], crop['crop_size']) == ('pillow', size)
    for part in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert part not in cfg


@pytest.mark.parametrize('row', ['s_tl_224', 's_plus_tl_dim64_224', 'l_ls_tl_384'])
def test_load_from_fills_both_heads_and_everything_else(row: str, weights: Path) -> None:
    """Strictly: no key of the file without a place, no parameter left at random."""
    cfg = load(row)
    arch, size, *_ = ROWS[row]
    long = arch.replace('_tl_dim64', '_dim64_tl')
    cheap_file(weights / f'uniformer_{long}_{size}.pth', arch)
    with torch.device('meta'):
        model = build_model(cfg)
    checkpoint = load_checkpoint(model, cfg.load_from, strict=True, map_location='meta')
    assert {'backbone.head.weight', 'backbone.aux_head.weight'} <= set(checkpoint['state_dict'])


def predicted(model: torch.nn.Module, sample: dict) -> torch.Tensor:
    data = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
    (result,) = model.val_step(data)
    return result.pred_score


def test_scores_are_those_of_our_own_classifier_on_a_real_photo(
    tmp_path: Path, weights: Path
) -> None:
    """Same weights, and PIL and arithmetic for the input: the softmax of cls + max of dense / 2."""
    from mmpretrain.registry import DATASETS, MODELS

    torch.manual_seed(0)
    own = create_model('uniformer_small_tl').eval()
    with torch.no_grad():
        own.head.weight.mul_(50)
        own.aux_head.weight.mul_(50)
    save(weights / 'uniformer_small_tl_224.pth', own.state_dict())
    cfg = load('s_tl_224')
    model = build_model(cfg)
    load_checkpoint(model, cfg.load_from, strict=True)

    (tmp_path / 'imagenet').symlink_to(shared_dir('data', 'imagenette').resolve())
    classes = sorted(path.name for path in (tmp_path / 'imagenet' / 'val').iterdir())
    scores, pooled = {}, {}
    own.head.register_forward_hook(lambda _module, _input, output: pooled.update(logits=output[0]))
    for normalisation, (mean, std) in NORMALISATIONS.items():
        cfg = load(f's_tl_224{normalisation}', tmp_path)
        dataset = DATASETS.build(
            dict(cfg.test_dataloader.dataset, metainfo=dict(classes=classes), indices=[150])
        )
        model.data_preprocessor = MODELS.build(cfg.model.data_preprocessor)
        scores[normalisation] = predicted(model, dataset[0])

        image = Image.open(dataset.get_data_info(0)['img_path']).convert('RGB')
        image = image.resize([side * 248 // min(image.size) for side in image.size], Image.BICUBIC)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
        x_BCHW = torch.from_numpy((pixels - mean) / std).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = own(x_BCHW)[0]
        torch.testing.assert_close(scores[normalisation], logits.softmax(-1), rtol=1e-3, atol=1e-6)

    assert not torch.allclose(scores[''], scores['_mean05'], rtol=1e-2)
    # Without the dense head the same image scores otherwise.
    model.backbone.aux_head.weight.data.zero_()
    model.backbone.aux_head.bias.data.zero_()
    without = predicted(model, dataset[0])
    assert not torch.allclose(without, scores['_mean05'], rtol=1e-2)
    torch.testing.assert_close(without, pooled['logits'].softmax(-1), rtol=1e-3, atol=1e-6)


def test_training_says_that_there_is_none(tmp_path: Path) -> None:
    """mmengine refuses before anything is loaded."""
    from mmengine.runner import Runner

    cfg = load('s_tl_224')
    cfg.model.backbone.arch = dict(
        depths=(1, 1, 1, 1), dims=(8, 8, 32, 32), head_dim=32, token_labels=True
    )
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.work_dir = str(tmp_path)
    with pytest.raises(RuntimeError, match='_train_loop'):
        Runner.from_cfg(cfg).train()
