# SPDX-License-Identifier: Apache-2.0
"""Outputs of the released networks, on weights and inputs that a formula rebuilds."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import uniformer_mm
from tests.conftest import shared_dir
from uniformer_mm import layers
from uniformer_mm.models import blocks

CASES = [
    'cls_tiny',
    'cls_small',
    'cls_small_plus',
    'cls_base_ls',
    'cls_small_tl',
    'cls_large_ls_tl',
    'dense_small_global',
    'dense_small_hybrid14',
    'dense_small_window14',
    'video_small_8f',
    'video_small_split',
    'cls_xxs',
    'dense_xxs',
    'video_xxs_8f',
    'video_xxs_ls_4f',
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def load_case(name: str) -> tuple[dict, list[np.ndarray], object]:
    """The case's description, its golden outputs and the module that rebuilds weights."""
    folder = shared_dir('golden')
    spec = importlib.util.spec_from_file_location('golden_fill', folder / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    case = json.loads((folder / 'cases' / f'{name}.json').read_text())
    with np.load(folder / 'cases' / f'{name}.npz') as file:
        outputs = [file[f'out{i}'] for i in range(len(case['outputs']))]
    return case, outputs, fill


def build(case: dict, fill: object, **overrides) -> nn.Module:
    """The case's network with the formula's weights under the official keys, in float64."""
    prefix = {2: 'uniformer_', 3: 'uniformer3d_'}[case.get('ndim', 2)]
    options = {k: case[k] for k in ('attention', 'window_size', 'layer_scale') if k in case}
    dense = case['id'].startswith('dense')
    model = uniformer_mm.create_model(
        prefix + case['arch'], features_only=dense, **options | overrides
    )
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == case['keys']
    weights = {
        key: torch.from_numpy(fill.tensor_for(key, tuple(shape)))
        for key, shape in case['keys'].items()
    }
    model.load_state_dict(weights, strict=True)
    return model.double().eval()


@torch.no_grad()
def relative_errors(model: nn.Module, case: dict, outputs: list, fill: object) -> list[float]:
    """||out - golden|| / ||golden|| of every output, in the model's dtype."""
    x = torch.from_numpy(fill.input_for(tuple(case['input_shape'])))
    result = model(x.to(next(model.parameters())))
    result = result if isinstance(result, tuple) else (result,)
    assert [list(y.shape) for y in result] == case['outputs']
    sampled = [fill.sample(y.double().cpu().numpy()) for y in result]
    return [
        float(np.linalg.norm(got - want) / np.linalg.norm(want))
        for got, want in zip(sampled, outputs, strict=True)
    ]


@pytest.mark.parametrize('name', CASES)
def test_equals_the_official_network(name: str) -> None:
    case, outputs, fill = load_case(name)
    model = build(case, fill)
    assert sum(p.numel() for p in model.parameters()) == case['parameters']
    for dtype, tolerance in TOLERANCE.items():
        assert max(relative_errors(model.to(dtype), case, outputs, fill)) <= tolerance


def assert_detected(model: nn.Module, case: dict, outputs: list, fill: object) -> None:
    """A wrong network must miss the looser of the two tolerances, not only the tight one."""
    assert max(relative_errors(model.float(), case, outputs, fill)) > TOLERANCE[torch.float32]


def test_detects_a_wrong_head_dim() -> None:
    case, outputs, fill = load_case('cls_tiny')
    assert_detected(build(case, fill, head_dim=16), case, outputs, fill)


def test_detects_a_wrong_block_norm_eps() -> None:
    case, outputs, fill = load_case('cls_tiny')
    model = build(case, fill)
    for module in model.modules():
        if isinstance(module, blocks.GlobalBlock):
            module.norm1.eps = module.norm2.eps = 1e-5
    errors = relative_errors(model, case, outputs, fill)
    assert max(errors) > TOLERANCE[torch.float64]


def test_detects_masked_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    case, outputs, fill = load_case('dense_small_window14')
    model = build(case, fill)

    def masked(block: blocks.GlobalBlock, tokens: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        B, C, H, W = shape
        w = block.window_size or max(H, W)
        x_BHWC = tokens.reshape(B, H, W, C)
        y = torch.empty_like(x_BHWC)
        for top in range(0, H, w):
            for left in range(0, W, w):
                window = x_BHWC[:, top : top + w, left : left + w]
                inside = block.attn(window.reshape(B, -1, C))
                y[:, top : top + w, left : left + w] = inside.reshape(window.shape)
        return y.flatten(1, 2)

    monkeypatch.setenv('UNIFORMER_FAST', '0')
    monkeypatch.setattr(blocks.GlobalBlock, 'attend', masked)
    assert_detected(model, case, outputs, fill)


def test_zero_tokens_take_part_in_padded_windows() -> None:
    """Windows in 3-D, which no released code has, against a loop over windows in float64."""
    torch.manual_seed(0)
    attn = layers.Attention(8, 4).double()
    x_BTHWC = torch.randn(2, 3, 5, 7, 8, dtype=torch.float64)
    shape = torch.Size((2, 8, 3, 5, 7))
    windows = layers.split_windows(x_BTHWC.flatten(1, 3), shape, 3, 4)
    got = layers.join_windows(attn(windows), shape, 3, 4).view_as(x_BTHWC)
    want = torch.empty_like(x_BTHWC)
    padded = F.pad(x_BTHWC, (0, 0, 0, 1, 0, 3))
    for b in range(2):
        for top in (0, 4):
            for left in (0, 4):
                tokens_NC = padded[b, :, top : top + 4, left : left + 4].reshape(-1, 8)
                q, k, v = (attn.qkv(tokens_NC)).reshape(-1, 3, 2, 4).unbind(1)
                weights = torch.einsum('nmd,kmd->mnk', q, k).mul(0.5).softmax(-1)
                mixed = torch.einsum('mnk,kmd->nmd', weights, v).reshape(-1, 8)
                window = attn.proj(mixed).reshape(3, 4, 4, 8)[:, : 5 - top, : 7 - left]
                want[b, :, top : top + 4, left : left + 4] = window
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
