# SPDX-License-Identifier: Apache-2.0
"""What FullyShardedDataParallel (FSDP) needs to know: units to shard, and clipping across ranks.

Under FSDP with ``use_orig_params=True`` (mmengine's default) a parameter is the part of it that its
rank holds, flattened. Two usual habits go wrong silently: a gradient norm over these parts is one
rank's share, and rules that ask for one-dimensional parameters (``flat_decay_mult``) match all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn

from ..models.blocks import DividedBlock, GlobalBlock, LocalBlock
from ..registry import FUNCTIONS, OPTIM_WRAPPERS, register
from .bfloat16 import BFloat16OptimWrapper
from .tensor_groups import grouped

BLOCKS = (LocalBlock, GlobalBlock, DividedBlock)


@register(FUNCTIONS)
def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """FSDP's ``auto_wrap_policy``: each block of a UniFormer is one unit, the rest the root's.

    So a rank gathers one block at a time, and gradient checkpointing (``with_cp``), which
    recomputes block by block, gathers the same unit again.

    Args:
        module: A module of the model.
        recurse: Whether FSDP asks to look inside ``module`` (always) or to wrap it.
        nonwrapped_numel: Elements of ``module`` that no unit holds yet; not asked for.

    Returns:
        Whether to do so.
    """
    return recurse or isinstance(module, BLOCKS)


def clip_sharded_grad_norm(
    params: Sequence[Tensor], max_norm: float, norm_type: float = 2
) -> Tensor:
    """Scale gradients in place so that their norm over all ranks is at most ``max_norm``.

    ``torch.nn.utils.clip_grad_norm_`` for parameters of which each rank holds another part, as
    under FSDP's FULL_SHARD and SHARD_GRAD_OP (HYBRID_SHARD holds each part once a node, and would
    count it as often). Every rank must call it.

    Args:
        params: Parameters with gradients, the ranks' parts.
        max_norm: Largest norm.
        norm_type: 2; the sum of squares is what adds up over ranks.

    Returns:
        The norm before clipping, the same on all ranks.

    Raises:
        ValueError: Another ``norm_type``.
    """
    if float(norm_type) != 2.0:
        raise ValueError(f'clip_grad: norm_type={norm_type!r} must be 2 for sharded parameters.')
    gradients = [param.grad for param in params]
    # A rank may hold nothing of a parameter, or of all. Where some tensors are empty, torch's
    # operators on lists give wrong norms up to torch 2.5 (pytorch issue 140066).
    held = [gradient for gradient in gradients if gradient.numel()]
    squares = torch.zeros((), device=gradients[0].device)
    if held:
        # In half precision the norms would overflow.
        norms = torch._foreach_norm([gradient.float() for gradient in held])
        squares += torch.stack(norms).square().sum()
    all_reduce(squares)
    norm = squares.sqrt()
    # torch.nn.utils.clip_grad_norm_ adds the same 1e-6.
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for (group,) in grouped(held):
        torch._foreach_mul_(group, factor.to(group[0].dtype))
    return norm


class _ClipsAcrossRanks(OptimWrapper):
    """Gradient clipping by the norm over all ranks in place of the local one."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        if self.clip_grad_kwargs and self.clip_func is not torch.nn.utils.clip_grad_value_:
            self.clip_func = clip_sharded_grad_norm


@register(OPTIM_WRAPPERS)
class ShardedOptimWrapper(_ClipsAcrossRanks):
    """mmengine's ``OptimWrapper`` for FSDP: float32, ``clip_grad`` by the norm over all ranks."""


@register(OPTIM_WRAPPERS)
class ShardedAmpOptimWrapper(_ClipsAcrossRanks, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` for FSDP: fp16, ``clip_grad`` by the norm over all ranks."""

    def __init__(self, *, use_fsdp: bool = True, **kwargs) -> None:
        super().__init__(use_fsdp=use_fsdp, **kwargs)

    def step(self, **kwargs) -> None:
        """Divide by the loss scale, then step, on all ranks or none.

        Left to itself, a fused optimizer looks for overflows among its own rank's gradients only.
        """
        if not self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
        super().step(**kwargs)


@register(OPTIM_WRAPPERS)
class ShardedBFloat16OptimWrapper(_ClipsAcrossRanks, BFloat16OptimWrapper):
    """Our ``BFloat16OptimWrapper`` for FSDP: ``clip_grad`` by the norm over all ranks."""
