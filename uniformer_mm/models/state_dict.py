# SPDX-License-Identifier: Apache-2.0
"""Two hooks on the backbone, so that no loader can leave it random without an error.

Toolboxes load whole checkpoints with ``strict=False`` and log what does not fit. The load hook
stops that where it would leave the backbone untouched or partly loaded; the save hook notes
head_dim beside the tensors (in the state dict's ``_metadata``, which mmengine keeps), so that
checkpoints trained with any toolbox state it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import CheckpointError
from .arch import arch_name

META_KEY = 'uniformer_mm'
"""Where a state dict's ``_metadata``, and the ``meta`` of a file, hold what we say of weights."""


def install(module: nn.Module) -> None:
    """Register both hooks on a backbone.

    Args:
        module: A network with the attribute ``arch``.
    """
    if hasattr(module, 'register_load_state_dict_pre_hook'):  # torch 2.5
        module.register_state_dict_post_hook(_note_head_dim)
        module.register_load_state_dict_pre_hook(_check_state)
    else:
        module._register_state_dict_hook(_note_head_dim)
        module._register_load_state_dict_pre_hook(_check_state, with_module=True)


def _note_head_dim(
    module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, local_metadata: dict
) -> None:
    local_metadata[META_KEY] = {
        'head_dim': module.arch.head_dim,
        'arch': arch_name(module.arch),
    }


def _check_state(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    prefix: str,
    local_metadata: dict,
    *_: object,
) -> None:
    """Refuse a state dict that has nothing for this backbone, or something else under its names.

    Raises:
        CheckpointError: What was found and what to do.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    if any(map(_is_sharded, tensors, tensors.values())):
        return
    where = f'under {prefix!r}' if prefix else 'at the top level'
    expected = {prefix + key: tensor.shape for key, tensor in tensors.items()}
    found = [key for key in state_dict if key in expected]
    if not found:
        raise CheckpointError(
            f'this checkpoint has no UniFormer tensor {where} (its keys there begin '
            f'{list(state_dict)[:3]}), so the backbone would stay random; load it with '
            "init_cfg=dict(type='UniFormerPretrained', checkpoint=...), which knows all layouts."
        )
    for key in found:
        have, want = tuple(state_dict[key].shape), tuple(expected[key])
        if have != want:
            raise CheckpointError(
                f'{key} has shape {have} in the checkpoint and {want} in the model: another arch '
                "or rank; init_cfg=dict(type='UniFormerPretrained', ...) says which, and inflates."
            )
    noted = local_metadata.get(META_KEY, {}).get('head_dim')
    if noted not in (None, module.arch.head_dim):
        raise CheckpointError(
            f'head_dim does not agree: the checkpoint was trained with {noted}, the model has '
            f'{module.arch.head_dim}; no shape shows it and the results would be wrong.'
        )


def _is_sharded(name: str, tensor: Tensor) -> bool:
    """Whether FSDP or DeepSpeed ZeRO-3 keeps this parameter in parts, under another name or shape.

    They load shards by their own rules, and whole checkpoints before they shard.
    """
    return '_flat_param' in name or hasattr(tensor, 'ds_id')
