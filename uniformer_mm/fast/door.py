# SPDX-License-Identifier: Apache-2.0
"""The one door: whether a block may run in another form than its own ``forward``.

One answer for a whole block. It is a sentence, or None: whoever hooks or replaces one layer gets
that block plain, nothing finer. Nothing is remembered, so nothing can be out of date.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..layers import BATCH_NORM, CONV, Attention, DropPath, Mlp
from ..ops.dispatch import triton_is_interpreted, why_not_triton
from ..ops.tracing import is_compiling, is_exporting
from .verify import wants_plain_form, why_not_verified

VARIABLE = 'UNIFORMER_FAST'
SETTINGS = ('1', '0', 'verify')

_CONVS = tuple(CONV.values())
_NORMS = (*BATCH_NORM.values(), nn.SyncBatchNorm)
_TENSORS = (Tensor, nn.Parameter)
_CONV_MLP = {'fc1': _CONVS, 'fc2': _CONVS, 'act': (nn.GELU,)}
_LINEAR_MLP = {'fc1': (nn.Linear,), 'fc2': (nn.Linear,), 'act': (nn.GELU,)}
_ATTENTION = {'qkv': (nn.Linear,), 'proj': (nn.Linear,)}
_LAYER_NORM = (nn.LayerNorm,)

# What the fused forms of each kind of block know: by the name of a child its classes, or those of
# the children below it.
LOCAL = {
    'norm1': _NORMS,
    'norm2': _NORMS,
    'pos_embed': _CONVS,
    'conv1': _CONVS,
    'attn': _CONVS,
    'conv2': _CONVS,
    'drop_path': (DropPath,),
    'mlp': ((Mlp,), _CONV_MLP),
}
GLOBAL = {
    'pos_embed': _CONVS,
    'norm1': _LAYER_NORM,
    'attn': ((Attention,), _ATTENTION),
    'drop_path': (DropPath,),
    'norm2': _LAYER_NORM,
    'mlp': ((Mlp,), _LINEAR_MLP),
}
DIVIDED = GLOBAL | {'t_norm': _LAYER_NORM, 't_attn': ((Attention,), _ATTENTION)}
_WITHOUT_PARAMETERS = (DropPath, nn.GELU, Mlp, Attention)


def setting() -> str:
    """The value of ``UNIFORMER_FAST``: ``'1'`` (also if unset), ``'0'`` or ``'verify'``.

    Raises:
        ValueError: It has another value.
    """
    value = os.environ.get(VARIABLE, '1')
    if value not in SETTINGS:
        raise ValueError(
            f'{VARIABLE}={value!r} is not known; use 1 (fused blocks where they are right), 0 '
            '(plain PyTorch everywhere) or verify (compare every block kind again before its first '
            'use).'
        )
    return value


def why_not(block: nn.Module, x: Tensor) -> str | None:
    """Why a block runs its own ``forward`` on ``x``, in one sentence; None if it need not.

    Args:
        block: A block of ``models/blocks.py``.
        x: Its input ``(B, C, *S)``.
    """
    return _why_not_now(x) or _why_not_device(x) or changed(block) or _why_not_verified(block, x)


def _why_not_now(x: Tensor) -> str | None:
    """What lies in the situation, not in the block."""
    if type(x) is not Tensor:
        return f'the input is a {type(x).__name__}, not an ordinary tensor'
    if is_compiling():
        return 'torch.compile fuses the plain form itself'
    if is_exporting():
        return 'a trace or export must hold no operator of ours'
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return 'transforms of torch.func differentiate the plain form'
    if torch._C._len_torch_dispatch_stack():
        return 'a TorchDispatchMode, such as a FLOP counter, wants to see each operator'
    if torch_module._has_any_global_hook():
        return 'there are global module hooks'
    if setting() == '0':
        return f'{VARIABLE}=0'
    if wants_plain_form():
        return 'its two forms are being compared'
    return None


def _why_not_device(x: Tensor) -> str | None:
    if not x.numel():
        return 'the map is empty'
    reason = why_not_triton(x.device, x.dtype)
    if reason is None or x.device.type == 'cpu':
        return None
    return reason


def _why_not_verified(block: nn.Module, x: Tensor) -> str | None:
    again = setting() == 'verify'
    # PyTorch's own operators need no proof, and the interpreter, which is slow, gives one if asked.
    if not x.is_cuda and not (again and triton_is_interpreted()):
        return None
    return why_not_verified(block, x, again)


def changed(block: nn.Module) -> str | None:
    """What somebody hooked, replaced or sharded in a block, in one sentence; None if nothing.

    Args:
        block: A block of ``models/blocks.py``.
    """
    children = block._modules
    kind = LOCAL if 'conv1' in children else DIVIDED if 't_attn' in children else GLOBAL
    return _why_not_children('', children, kind)


def _why_not_children(prefix: str, children: dict[str, nn.Module], kinds: dict) -> str | None:
    if len(children) != len(kinds):
        extra = sorted(children.keys() - kinds)
        return f'the block has other children than it was built with: {extra}'
    for name, classes in kinds.items():
        module = children.get(name)
        below = None
        if isinstance(classes[0], tuple):
            classes, below = classes
        reason = _why_not_layer(module, classes)
        if reason is not None:
            return f'{prefix}{name} {reason}'
        if below is not None:
            reason = _why_not_children(f'{prefix}{name}.', module._modules, below)
            if reason is not None:
                return reason
    return None


def _why_not_layer(module: nn.Module | None, classes: Iterable[type]) -> str | None:
    kind = type(module)
    if kind not in classes:
        return f'is a {kind.__name__}'
    attributes = module.__dict__
    if (
        attributes['_forward_hooks']
        or attributes['_forward_pre_hooks']
        or attributes['_backward_hooks']
        or attributes['_backward_pre_hooks']
    ):
        return 'has hooks'
    if 'forward' in attributes:
        return 'has a forward of its own'
    if attributes.get('_compiled_call_impl') is not None:
        return 'is compiled by itself'
    if kind in _WITHOUT_PARAMETERS:
        if kind is nn.GELU and module.approximate != 'none':
            return f'is a GELU with approximate={module.approximate!r}'
        return None
    parameters = attributes['_parameters']
    if type(parameters.get('weight')) not in _TENSORS:
        return 'has no weight that is an ordinary tensor (sharded, quantised or not affine)'
    if type(parameters.get('bias')) not in _TENSORS:
        return 'has no bias that is an ordinary tensor'
    if kind in _NORMS:
        if kind is nn.SyncBatchNorm and module.training:
            return 'is a SyncBatchNorm in training, which speaks to other processes'
        if module.running_mean is None:
            return 'has no running statistics'
    return None
