# SPDX-License-Identifier: Apache-2.0
"""The works and the networks that do them, all in one random state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn

from tests.models.official import OfficialUniFormer
from uniformer_mm.models import ARCHS, UniFormer2d, UniFormer3d
from uniformer_mm.models.cuda_graphs import use_cuda_graphs

MODES = ('inference', 'training')
ATTENTIONS = ('global', 'window', 'hybrid', 'divided')
# Archs' fields that say nothing about how a network computes.
NOT_OPTIONS = {'params', 'token_labels'}
MMACTION2_EPS = 1e-6


@dataclass(frozen=True)
class Task:
    """One kind of work.

    Attributes:
        rank: 2 or 3.
        dense: Whether all four stages are returned.
        attention: Its usual attention.
        cpu_shape: Batch, (frames,) height, width for a processor.
        cuda_shape: The same for a GPU: the baselines of the project.
    """

    rank: int
    dense: bool
    attention: str
    cpu_shape: tuple[int, ...]
    cuda_shape: tuple[int, ...]


TASKS = {
    'image': Task(2, False, 'global', (8, 224, 224), (256, 224, 224)),
    'dense': Task(2, True, 'hybrid', (1, 800, 1280), (4, 800, 1280)),
    'video': Task(3, False, 'global', (1, 16, 224, 224), (16, 16, 224, 224)),
}


@dataclass(frozen=True)
class Work:
    """One cell of the table."""

    arch: str
    task: str
    attention: str
    shape: tuple[int, ...]
    dtype: str
    mode: str

    def __str__(self) -> str:
        size = 'x'.join(map(str, self.shape))
        return f'{self.task} {self.arch} {self.attention} {size} {self.dtype} {self.mode}'

    def sample(self, device: str) -> Tensor:
        """A random input."""
        batch, *size = self.shape
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, *size, generator=generator).to(device)


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


def _official(work: Work) -> nn.Module:
    task = TASKS[work.task]
    row = {k: v for k, v in asdict(ARCHS[work.arch]).items() if k not in NOT_OPTIONS}
    network = OfficialUniFormer(
        task.rank, num_classes=None if task.dense else 1, attention=work.attention, **row
    )
    return network if task.dense else LastStage(network)


def _ours(work: Work, **options) -> nn.Module:
    task = TASKS[work.task]
    front = {2: UniFormer2d, 3: UniFormer3d}[task.rank]
    outputs = (
        dict(out_indices=(0, 1, 2, 3))
        if task.dense
        else dict(out_indices=(3,), out_norm='bn', as_tuple=False)
    )
    return front(work.arch, attention=work.attention, **outputs, **options)


def _compiled(work: Work, **options) -> nn.Module:
    network = _ours(work)
    network.compile(fullgraph=True, **options)
    return network


def _graphed(work: Work) -> nn.Module:
    network = _ours(work)
    use_cuda_graphs(network)
    return network


def _mmaction2(work: Work) -> nn.Module:
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


# How each variant is built; the first is what the others are compared with.
VARIANTS: dict[str, Callable[[Work], nn.Module]] = {
    'official': _official,
    'mmaction2': _mmaction2,
    'eager': _ours,
    'eager-autocast-stream': lambda work: _ours(work, residual_dtype='autocast'),
    'eager-graphs': _graphed,
    'compile': _compiled,
    'compile-graphs': lambda work: _compiled(work, mode='reduce-overhead'),
}
# Those that replay CUDA graphs, and passes until they do: warming up, recording, replaying.
REPLAYED = ('eager-graphs', 'compile-graphs')
PASSES = 4


def why_not(variant: str, work: Work, device: str) -> str | None:
    """Why a variant has no such network on a device, or None."""
    task, arch = TASKS[work.task], ARCHS[work.arch]
    if variant in REPLAYED and not device.startswith('cuda'):
        return f'CUDA graphs need a GPU, not {device}'
    if work.attention == 'divided' and task.rank == 2:
        return 'divided attention needs clips'
    if variant == 'mmaction2':
        plain = {f.name: f.default for f in fields(arch) if f.name in ('stem', 'layer_scale')}
        if task.rank == 2 or work.attention != 'global':
            return 'mmaction2 has the 3-D network with global attention only'
        if any(getattr(arch, name) != value for name, value in plain.items()):
            return f'mmaction2 cannot build arch {work.arch}'
    return None


def build(variant: str, work: Work, state: dict[str, Tensor]) -> nn.Module:
    """A network holding ``state`` (official keys of the trunk)."""
    network = VARIANTS[variant](work)
    inner = network.network if isinstance(network, LastStage) else network
    inner.load_state_dict(state, strict=True)
    return network


def random_state(work: Work) -> dict[str, Tensor]:
    """Parameters as initialised, BatchNorm statistics away from zero and one."""
    torch.manual_seed(0)
    state = _ours(work).state_dict()
    for name, tensor in state.items():
        if 'running_mean' in name:
            tensor.normal_(std=0.1)
        elif 'running_var' in name:
            tensor.uniform_(0.5, 1.5)
    return state
