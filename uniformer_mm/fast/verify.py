# SPDX-License-Identifier: Apache-2.0
"""Nothing runs on a GPU that was never right on that GPU.

The first time that a fused block would run on a kind of device (GPU, releases of PyTorch, Triton
and this package, dtypes, structure of the block), it is compared once with its plain form, in
training and in evaluation, forward and backward, on a small random map. Its error against float64
may be twice that of the plain form and some roundings. The verdict is kept per user; a block that
fails is plain from then on, and one warning says so.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops.autocast import autocast_dtype, without_autocast
from ..ops.cache import cache_folder
from . import attention, local

FILE, FILE_VERSION = 'verified.json', 1
# Frames, rows and columns of the map beyond a window; it fills several tiles of every kernel.
FRAMES, ROWS, COLUMNS = 2, 9, 10
SAMPLES = 2

logger = logging.getLogger(__name__)


class Structure(NamedTuple):
    """What decides which kernels a block runs, and how.

    Attributes:
        kind: ``'local'``, ``'global'``, ``'window'`` or ``'divided'``.
        ndim: Axes of its map, 2 or 3.
        channels: Channels C.
        hidden: Hidden units of its MLP.
        head_dim: Channels of a head; 0 for a convolution block.
        window_size: Side of a window; 0 without.
        scaled: Whether its branches have residual scales.
        dtype: Of the residual stream.
        matmul_dtype: Of matrix multiplications.
        parameter_dtype: Of the parameters.
        device: Where it is.
    """

    kind: str
    ndim: int
    channels: int
    hidden: int
    head_dim: int
    window_size: int
    scaled: bool
    dtype: torch.dtype
    matmul_dtype: torch.dtype
    parameter_dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        dtypes = (self.dtype, self.matmul_dtype, self.parameter_dtype)
        parts = [f'{self.kind} {self.ndim}-D', f'{self.channels}-{self.hidden} channels']
        parts += [f'heads of {self.head_dim}'] * bool(self.head_dim)
        parts += [f'windows of {self.window_size}'] * bool(self.window_size)
        parts += ['residual scales'] * self.scaled
        return ', '.join((*parts, '/'.join(str(dtype).split('.')[1] for dtype in dtypes)))


def structure_of(block: nn.Module, x: Tensor) -> Structure:
    """The structure of a block on maps like ``x``, ``(B, C, *S)``."""
    children = block._modules
    attn = children['attn']
    window_size = getattr(block, 'window_size', None) or 0
    if 'conv1' in children:
        kind = 'local'
    elif 't_attn' in children:
        kind = 'divided'
    else:
        kind = 'window' if window_size else 'global'
    weight = children['mlp'].fc1.weight
    return Structure(
        kind,
        x.ndim - 2,
        weight.shape[1],
        weight.shape[0],
        0 if kind == 'local' else attn.head_dim,
        window_size,
        block.gamma_1 is not None,
        x.dtype,
        autocast_dtype(x) or x.dtype,
        weight.dtype,
        x.device,
    )


# Verdicts of this process: None for right, or what is wrong.
_verdicts: dict[Structure, str | None] = {}
_plain = False


@contextmanager
def plain_form() -> Iterator[None]:
    """A context in which every block is plain."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def wants_plain_form() -> bool:
    """Whether blocks are to be plain, because forms are being compared."""
    return _plain


def why_not_verified(block: nn.Module, x: Tensor, again: bool = False) -> str | None:
    """What is wrong with the fused form of a block on this device; None if it is right.

    Args:
        block: A block that has a fused form on ``x``.
        x: Its input.
        again: Whether to compare even if the user's record has a verdict.
    """
    structure = structure_of(block, x)
    if structure in _verdicts:
        return _verdicts[structure]
    key = f'{_machine(x.device)}, {structure}'
    record = _read()
    if key in record and not again:
        verdict = record[key]
    elif x.is_cuda and torch.cuda.is_current_stream_capturing():
        return (
            'it has not been compared with its plain form yet, and a CUDA graph is being captured'
        )
    else:
        verdict = verify(block, structure).verdict
    if verdict is not None:
        verdict = f'its fused form is not right on this device: {verdict}'
        warnings.warn(
            f'{structure}: this block runs in plain PyTorch, since {verdict}. '
            'UNIFORMER_FAST=verify compares again, `uniformer-mm doctor --gpu` shows all blocks.',
            RuntimeWarning,
            stacklevel=2,
        )
    _verdicts[structure] = verdict
    return verdict


def verify(block: nn.Module, structure: Structure) -> Comparison:
    """Compare now, and put the verdict on record."""
    found = compare(block, structure)
    _write(f'{_machine(structure.device)}, {structure}', found.verdict)
    return found


class Comparison(NamedTuple):
    """What a comparison of a block's two forms found.

    Attributes:
        verdict: What is wrong with the fused form; None if nothing is.
        ratio: Its largest error, in multiples of what is allowed.
    """

    verdict: str | None
    ratio: float


def compare(block: nn.Module, structure: Structure) -> Comparison:
    """Compare the fused form of blocks like ``block`` with the plain one, on random numbers.

    Neither the block nor the state of random numbers changes.
    """
    device = structure.device
    with (
        plain_form(),
        torch.random.fork_rng([device] if device.type == 'cuda' else []),
        torch.inference_mode(False),
        torch.enable_grad(),
        _autocast(structure),
    ):
        return _compare(block, structure)


def _autocast(structure: Structure) -> torch.autocast:
    device = structure.device.type
    if structure.matmul_dtype is structure.dtype and structure.parameter_dtype is structure.dtype:
        return torch.autocast(device, enabled=False)
    return torch.autocast(device, structure.matmul_dtype)


def _compare(block: nn.Module, structure: Structure) -> Comparison:
    model, x = _random_block(block, structure)
    fused = local.local_block if structure.kind == 'local' else attention.attention_block
    plain = type(block).forward
    epsilon = torch.finfo(structure.matmul_dtype).eps
    worst, where = 0.0, ''
    for training in (True, False):
        mode = 'training' if training else 'evaluation'
        model.train(training)
        with without_autocast(x):
            exact = _pass(plain, _same(model).double(), x.double())
        theirs = _pass(plain, _same(model), x)
        try:
            ours = _pass(fused, _same(model), x)
            torch.manual_seed(1)
            with torch.no_grad():
                ours['result without gradients'] = fused(_same(model), x).double()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Whatever a compiler or driver raises is the verdict.
            return Comparison(
                f'{_kernel_of(error)}{type(error).__name__} in {mode}: {error}', math.inf
            )
        for form in (exact, theirs):
            form['result without gradients'] = form['result']
        largest = max(float(truth.norm()) for name, truth in exact.items() if 'gradient' in name)
        for name, truth in exact.items():
            # Gradients that vanish, as of a bias before a norm, are roundings of large ones.
            scale = float(truth.norm()) + largest * ('gradient of' in name)
            allowed = 2 * float((theirs[name] - truth).norm()) + epsilon * scale
            ratio = float((ours[name] - truth).norm()) / allowed
            # Not a number is beyond every bound.
            if not ratio <= worst:
                worst, where = ratio, f'{name} in {mode}'
    if worst <= 1:
        return Comparison(None, worst)
    return Comparison(f'{where} is off by {worst:.2g} times what is allowed', worst)


def _kernel_of(error: Exception) -> str:
    """The Triton kernel that was being launched, with a colon."""
    for frame, _ in walk_tb(error.__traceback__):
        kernel = frame.f_locals.get('self')
        if type(kernel).__module__.endswith('ops.triton.launch'):
            return f'kernel {kernel.__name__}: '
    return ''


def _clone(module: nn.Module, make: Callable[[nn.Module, str, Tensor], Tensor]) -> nn.Module:
    """A module with tensors of its own and without hooks; whatever else hangs on it is shared.

    Not ``copy.deepcopy``: somebody's hook, or attribute, may lead to a whole training run.
    """
    clone = type(module).__new__(type(module))
    clone.__dict__ = {
        name: type(value)() if name.endswith('_hooks') and isinstance(value, dict) else value
        for name, value in vars(module).items()
    }
    clone._parameters = {
        name: None if tensor is None else nn.Parameter(make(module, name, tensor.detach()))
        for name, tensor in module._parameters.items()
    }
    clone._buffers = {name: b if b is None else b.clone() for name, b in module._buffers.items()}
    clone._modules = {name: _clone(child, make) for name, child in module._modules.items()}
    return clone


def _same(model: nn.Module) -> nn.Module:
    """A copy to which a pass may do what it does."""
    return _clone(model, lambda _, name, tensor: tensor.clone())


def _random_values(module: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """Values of about the size that they have in a network."""
    values = torch.randn(tensor.shape, device=tensor.device)
    if isinstance(module, nn.LayerNorm) or hasattr(module, 'running_mean'):
        values = 0.3 * values + (name == 'weight')
    elif tensor.ndim > 1 and name == 'weight':
        values *= tensor[0].numel() ** -0.5
    return values.to(tensor.dtype)


def _random_block(block: nn.Module, structure: Structure) -> tuple[nn.Module, Tensor]:
    """A block of the same structure, and a map."""
    torch.manual_seed(0)
    model = _clone(block, _random_values)
    for module in model.modules():
        if hasattr(module, 'running_mean'):
            module.reset_running_stats()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    size = (structure.window_size + ROWS, structure.window_size + COLUMNS)
    shape = (SAMPLES, structure.channels, *(FRAMES,) * (structure.ndim - 2), *size)
    layout = torch.channels_last if structure.ndim == 2 else torch.channels_last_3d
    x = torch.randn(shape, device=structure.device)
    return model, x.to(structure.dtype, memory_format=layout)


def _pass(
    form: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, x: Tensor
) -> dict[str, Tensor]:
    """Result, gradients and statistics of a pass, in float64."""
    torch.manual_seed(1)
    x = x.detach().clone().requires_grad_()
    y = form(model, x)
    torch.manual_seed(2)
    cotangent = torch.randn(y.shape, device=y.device)
    # Outside of autocast, as PyTorch asks for.
    with without_autocast(x):
        y.backward(cotangent.to(y.dtype))
    found = {'result': y.detach(), 'gradient of the input': x.grad}
    found |= {f'gradient of {name}': p.grad for name, p in model.named_parameters()}
    found |= {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    return {name: tensor.double() for name, tensor in found.items()}


# The user's record.


def record_file() -> Path:
    """Where verdicts are kept."""
    return cache_folder() / FILE


def _machine(device: torch.device) -> str:
    """GPU and releases, as they stand in the record."""
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type
    packages = ('torch', 'triton', 'uniformer_mm')
    return ', '.join((name, *(f'{package} {_release(package)}' for package in packages)))


def _release(package: str) -> str:
    if package == 'torch':
        return torch.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'without a version'


def _read() -> dict[str, str | None]:
    """The verdicts on record; none where there is no record or it cannot be read."""
    path = record_file()
    try:
        content = json.loads(path.read_text())
        if content['version'] == FILE_VERSION:
            return dict(content['verdicts'])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning('%s cannot be read (%s); blocks are compared again.', path, error)
    return {}


def _write(key: str, verdict: str | None) -> None:
    """Add a verdict to the record; several processes may do so at a time."""
    path = record_file()
    verdicts = _read() | {key: verdict}
    text = json.dumps({'version': FILE_VERSION, 'verdicts': verdicts}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError as error:
        logger.warning('%s cannot be written (%s); the next process compares again.', path, error)


def forget() -> None:
    """Forget the verdicts of this process; those on record stay."""
    _verdicts.clear()
