# SPDX-License-Identifier: Apache-2.0
"""The networks that are measured, all in one random state."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from unittest.mock import patch

import torch
from torch import Tensor, nn

import uniformer_mm
from tools.reference.uniformer import OfficialUniFormer
from uniformer_mm.models import ARCHS, UniFormer2d, UniFormer3d
from uniformer_mm.ops.cpu import cpu_multiplies

from .graphs import Graphed
from .workloads import TASKS, Workload

# Archs' fields that say nothing about how a network computes.
NOT_OPTIONS = {'params', 'token_labels'}
MMACTION2_EPS = 1e-6


class LastStage(nn.Module):
    """The reference without its heads: the final norm of the last stage."""

    def __init__(self, network: OfficialUniFormer) -> None:
        super().__init__()
        self.network = network
        for name in ('head', 'norm_cls', 'head_cls'):
            if hasattr(network, name):
                setattr(network, name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Maps of stage 4 after the BatchNorm."""
        maps, _ = self.network.run(x)
        return self.network.norm(maps[-1])


def _official(work: Workload) -> nn.Module:
    task = TASKS[work.task]
    row = {k: v for k, v in asdict(ARCHS[work.arch]).items() if k not in NOT_OPTIONS}
    network = OfficialUniFormer(
        task.rank, num_classes=None if task.dense else 1, attention=work.attention, **row
    )
    return network if task.dense else LastStage(network)


def _ours(work: Workload, **options) -> nn.Module:
    task = TASKS[work.task]
    front = {2: UniFormer2d, 3: UniFormer3d}[task.rank]
    outputs = (
        dict(out_indices=(0, 1, 2, 3))
        if task.dense
        else dict(out_indices=(3,), out_norm='bn', as_tuple=False)
    )
    return front(work.arch, attention=work.attention, **outputs, **options)


def _mmaction2(work: Workload) -> nn.Module:
    """mmaction2's own network; its blocks' LayerNorms get the official eps, which costs nothing."""
    from mmaction.models.backbones.uniformer import UniFormer

    arch = ARCHS[work.arch]
    network = UniFormer(
        depth=list(arch.depths),
        embed_dim=list(arch.dims),
        head_dim=arch.head_dim,
        mlp_ratio=arch.mlp_ratio,
        drop_path_rate=0.0,
        pretrained2d=False,
    )
    for block in (*network.blocks3, *network.blocks4):
        block.norm1.eps = block.norm2.eps = MMACTION2_EPS
    return network


# How each variant is built; the first is what the others are compared with. ``eager`` is our plain
# PyTorch, ``fast`` what a user gets: fused blocks where the door lets them.
VARIANTS: dict[str, Callable[[Workload], nn.Module]] = {
    'official': _official,
    'official-compile': _official,
    'mmaction2': _mmaction2,
    'eager': _ours,
    'fast': _ours,
    'fast-autocast-stream': lambda work: _ours(work, residual_dtype='autocast'),
    'graphs': _ours,
    'compile': _ours,
    'reduce-overhead': _ours,
}
# Options of torch.compile.
COMPILED = {
    'official-compile': {'fullgraph': True},
    'compile': {'fullgraph': True},
    'reduce-overhead': {'fullgraph': True, 'mode': 'reduce-overhead'},
}
# Those that run PyTorch's operators only: whoever counts these sees the plain form of a block.
COUNTED = ('official', 'mmaction2', 'eager')
# Those that replay CUDA graphs, and passes until they do: warming up, capturing, replaying.
REPLAYED = ('graphs', 'reduce-overhead')
PASSES = 4


def conditions(variant: str) -> AbstractContextManager[object]:
    """What a variant is built and run in."""
    settings = {'eager': '0', 'fast': '1', 'fast-autocast-stream': '1', 'graphs': '1'}
    if variant not in settings:
        return nullcontext()
    return patch.dict(os.environ, UNIFORMER_FAST=settings[variant])


def _compile(network: nn.Module, variant: str) -> nn.Module:
    """Compiled, ours as ``uniformer_mm.compile`` does it."""
    if variant == 'official-compile':
        network.compile(**COMPILED[variant])
        return network
    return uniformer_mm.compile(network, **COMPILED[variant])


@functools.cache
def _cpu_has_float16() -> bool:
    """Whether autocast on a CPU knows float16 and there are kernels, tried on two layers."""
    x = torch.randn(1, 4, 4, 4, requires_grad=True)
    layers = nn.Conv2d(4, 4, 3, groups=4), nn.Linear(2, 2)
    try:
        # Older releases warn and turn autocast off.
        with warnings.catch_warnings(), torch.autocast('cpu', dtype=torch.float16):
            warnings.simplefilter('ignore')
            y = layers[1](layers[0](x))
        y.float().sum().backward()
    except RuntimeError:
        return False
    return y.dtype is torch.float16


def is_emulated(dtype: str, device: str) -> bool:
    """Whether products in a dtype are not the processor's own, so that there is no roofline."""
    if device.startswith('cuda') or dtype == 'float32':
        return False
    return not cpu_multiplies(getattr(torch, dtype))


def why_not(variant: str, work: Workload, device: str) -> str | None:
    """Why a variant has no such network on a device, or None; costs next to nothing."""
    task, arch = TASKS[work.task], ARCHS[work.arch]
    if work.attention == 'divided' and task.rank == 2:
        return 'divided attention needs clips'
    if arch.keep_ratios and work.attention != 'global':
        return f'the hourglass arch {work.arch} has global attention only'
    on_gpu = device.startswith('cuda')
    if work.dtype == 'float16' and not on_gpu and not _cpu_has_float16():
        return f'torch {torch.__version__} has no float16 autocast on a CPU'
    if variant in REPLAYED and not on_gpu:
        return f'CUDA graphs need a GPU, not {device}'
    return _why_not_mmaction2(work) if variant == 'mmaction2' else None


def _why_not_mmaction2(work: Workload) -> str | None:
    arch = ARCHS[work.arch]
    if TASKS[work.task].rank == 2 or work.attention != 'global':
        return 'mmaction2 has the 3-D network with global attention only'
    plain = {f.name: f.default for f in fields(arch) if f.name in ('stem', 'layer_scale')}
    if any(getattr(arch, name) != value for name, value in plain.items()):
        return f'mmaction2 cannot build arch {work.arch}'
    if importlib.util.find_spec('mmaction') is None:
        return 'the package mmaction2 is not installed'
    return None


def trunk(network: nn.Module) -> nn.Module:
    """The module with the official keys."""
    network = getattr(network, '_orig_mod', network)
    return network.network if isinstance(network, (LastStage, Graphed)) else network


def build(variant: str, work: Workload, state: dict[str, Tensor]) -> nn.Module:
    """A network holding ``state`` (official keys of the trunk)."""
    network = VARIANTS[variant](work)
    trunk(network).load_state_dict(state, strict=True)
    if variant in COMPILED:
        return _compile(network, variant)
    return Graphed(network) if variant == 'graphs' else network


def random_state(work: Workload) -> dict[str, Tensor]:
    """Parameters as initialised, BatchNorm statistics away from zero and one."""
    torch.manual_seed(0)
    state = _ours(work).state_dict()
    for name, tensor in state.items():
        if 'running_mean' in name:
            tensor.normal_(std=0.1)
        elif 'running_var' in name:
            tensor.uniform_(0.5, 1.5)
    return state


def decisive_state(work: Workload) -> dict[str, Tensor]:
    """A random state that leaves no choice to the order of a sort.

    The class token of a light arch begins as zero: then all first scores are equal, and right
    networks may keep different tokens.
    """
    state = random_state(work)
    if 'cls_token' in state:
        state['cls_token'].normal_()
    return state
