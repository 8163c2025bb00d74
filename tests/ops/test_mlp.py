# SPDX-License-Identifier: Apache-2.0
"""The MLP on PyTorch's own operators."""

from __future__ import annotations

import pytest
import torch

from uniformer_mm.ops import dispatch
from uniformer_mm.ops.mlp import implementation

from .mlp_checks import MlpCase, check_mlp, check_mlp_add, mlp, mlp_results

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SHAPES = (((1, 3), 5, 2), ((2, 3, 7, 20), 48, 20), ((2, 2, 3, 2, 9), 36, 130))
CASES = [MlpCase(*shape, dtype) for shape in SHAPES for dtype in DTYPES]
SMALL = MlpCase((2, 3, 8), 16, 8)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_equals_reference(case: MlpCase) -> None:
    check_mlp(case, 'cpu', 'pytorch')


@pytest.mark.parametrize('stream', DTYPES[:3], ids=str)
@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
def test_sum_with_a_stream_equals_reference(dtype: torch.dtype, stream: torch.dtype) -> None:
    check_mlp_add(MlpCase((2, 3, 7, 20), 48, 24, dtype), stream, 'cpu', 'pytorch')


@pytest.mark.parametrize('shape', [(0, 8), (2, 0, 5, 8)], ids=str)
def test_empty_maps_have_zero_gradients(shape: tuple) -> None:
    x, *parameters, _ = MlpCase(shape, 16, 4).tensors('cpu')
    y = mlp(x, *parameters, backend='auto')
    y.sum().backward()
    assert y.shape == (*shape[:-1], 4)
    assert x.grad.shape == shape
    assert not any(parameter.grad.any() for parameter in parameters)


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, 'triton_is_interpreted', lambda: False)
    dispatch.resolve.cache_clear()
    x, w_HC, _, w_OH, *_ = SMALL.tensors('cpu')
    with pytest.raises(ValueError, match=r"backend='triton' cannot run: "):
        implementation(x, w_HC, w_OH, 'triton')
    with pytest.raises(ValueError, match=r"backend='cublas' is not known; use one of \['auto', "):
        implementation(x, w_HC, w_OH, 'cublas')
    reason = dispatch.why_not_triton_mlp(torch.device('cuda'), torch.bfloat16, 64, 320)
    assert reason == '320 channels are more than 128'


def test_repeats_bit_for_bit() -> None:
    case = MlpCase((2, 3, 9, 7, 16), 64, 16)
    first, second = (mlp_results(mlp, case, 'cpu', backend='auto') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
