# SPDX-License-Identifier: Apache-2.0
"""ONNX files of both exporters, run in ONNX Runtime and compared with the plain reference."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .networks import (
    CASES,
    LARGER,
    SIDES,
    Case,
    assert_same,
    classifier,
    dense,
    reference_of,
    sample,
)

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')

pytestmark = pytest.mark.slow
# The size of the export, then odd ones: none divides by the strides or the windows.
SIZES = ((48, 64), (75, 106), (33, 47), (64, 48))
OPSET = 18


def axes(case: Case) -> dict[int, str]:
    return {0: 'batch', case.ndim: 'height', 1 + case.ndim: 'width'}


def export(model: nn.Module, case: Case, x: Tensor, file: Path, dynamo: bool, dynamic: bool):
    arguments = {'opset_version': OPSET, 'input_names': ['x'], 'dynamo': dynamo}
    if dynamo:
        arguments |= {'verbose': False}
        if dynamic:
            dims = dict.fromkeys(axes(case), torch.export.Dim.DYNAMIC)
            arguments |= {'dynamic_shapes': (dims,)}
    elif dynamic:
        arguments |= {'dynamic_axes': {'x': axes(case)}}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(model, (x,), str(file), **arguments)


def run(file: Path, x: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    results = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x.numpy())})
    return [torch.from_numpy(result) for result in results]


def check(case: Case, model: nn.Module, tmp_path: Path, dynamo: bool, dynamic: bool) -> None:
    file = tmp_path / 'network.onnx'
    x = sample(case, sides=LARGER if dynamic and dynamo else SIDES, dtype=torch.float32)
    export(model, case, x, file, dynamo, dynamic)
    onnx.checker.check_model(str(file), full_check=True)
    domains = {entry.domain for entry in onnx.load(str(file)).opset_import}
    assert domains <= {'', 'ai.onnx', 'pkg.onnxscript.torch_lib', 'pkg.onnxscript.torch_lib.common'}
    reference = reference_of(case, model).double()
    inputs = [x.flip(-1)]
    if dynamic:
        inputs += [
            sample(case, batch, sides, torch.float32)
            for batch, sides in zip((1, 3, 2, 2), SIZES, strict=True)
        ]
    for z in inputs:
        with torch.no_grad():
            want = reference(z.double())
        assert_same(run(file, z), want, 2e-4)


@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
@pytest.mark.parametrize('dynamo', [False, True], ids=['torchscript', 'dynamo'])
@pytest.mark.parametrize('name', CASES)
def test_dense_networks(name: str, dynamo: bool, dynamic: bool, tmp_path: Path) -> None:
    """Random weights, so that no two hourglass scores tie."""
    case = CASES[name]
    check(case, dense(case).eval(), tmp_path, dynamo, dynamic)


@pytest.mark.parametrize('dynamo', [False, True], ids=['torchscript', 'dynamo'])
@pytest.mark.parametrize('name', ['image_global', 'image_hourglass', 'clip_global'])
def test_classifiers(name: str, dynamo: bool, tmp_path: Path) -> None:
    case = CASES[name]
    check(case, classifier(case).eval(), tmp_path, dynamo, True)
