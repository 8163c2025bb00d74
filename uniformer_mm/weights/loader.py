# SPDX-License-Identifier: Apache-2.0
"""Loading with an account of every tensor: of the file and of the model.

Each of the file's keys ends as loaded, inflated, or expected-and-named; so does each of the
model's. Anything else raises before the model is touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike

from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import CheckpointError
from ..labels import class_names
from ..models.arch import arch_name
from ..models.uniformer import UniFormer
from .identify import Identified, identify
from .inflation import INFLATIONS, can_inflate, inflate
from .key_schemes import HEADS, DetectedScheme
from .structure import Structure, first_difference, scales_are_new, structure_of

_TELLING = 4
# Pieces of hourglass networks outside the stages that they belong to.
_STAGE_OF = {'cls_token': 'patch_embed3', 'cls_upsample': 'patch_embed4'}


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Attributes:
        source: File, or zoo name and file.
        arch: The model's arch, by name if it has one.
        head_dim: The model's.
        head_dim_source: How it is known to be the file's.
        class_order: Order of the loaded classifier's rows; None if not known or not loaded.
        sha256: Digest of the file.
        loaded: Model keys filled from the file.
        inflated: Those of them that were given a time axis.
        unused: File keys without a place in the model, by reason.
        newly_initialised: Model keys that keep their initialisation, by reason.
    """

    source: str
    arch: str
    head_dim: int
    head_dim_source: str
    class_order: str | None
    sha256: str
    loaded: tuple[str, ...]
    inflated: tuple[str, ...]
    unused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    newly_initialised: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Tensors of the model."""
        return len(self.loaded) + sum(map(len, self.newly_initialised.values()))

    def __str__(self) -> str:
        parts = [f'{len(self.loaded)} / {self.total} tensors loaded']
        if self.inflated:
            parts[0] += f' ({len(self.inflated)} inflated)'
        parts.append(f'arch {self.arch}')
        parts.append(f'head_dim {self.head_dim} ({self.head_dim_source})')
        if self.class_order:
            parts.append(f'class order {self.class_order}')
        for verb, groups in (
            ('left out', self.unused),
            ('newly initialised', self.newly_initialised),
        ):
            for reason, keys in groups.items():
                parts.append(f'{verb} {len(keys)}: {reason}')
        parts.append(f'from {self.source}')
        parts.append(f'sha256 {self.sha256[:12]}')
        return '; '.join(parts)


def load_weights(
    model: nn.Module,
    checkpoint: str | PathLike,
    *,
    inflation: str = 'mean',
    prefix: str | None = None,
    ema: bool = False,
    class_order: str | None = None,
    folders: Sequence[str | PathLike] = (),
) -> LoadReport:
    """Load a checkpoint into a UniFormer and log one line about it.

    Args:
        model: A backbone or classifier of this package, or a model that contains exactly one.
        checkpoint: Path, or ``uniformer://`` and a name of the zoo.
        inflation: How 2-D kernels enter a 3-D network: ``'mean'`` (official) or ``'centre'``.
        prefix: What stands before the trunk's keys in the file; found by itself for ``''`` and
            ``'backbone.'``.
        ema: Take the averaged weights of a training checkpoint.
        class_order: Class order that the labels will have, see :mod:`uniformer_mm.labels`;
            a head of another or unknown order is then an error.
        folders: More folders to look for a zoo name in.

    Returns:
        The account of all tensors.

    Raises:
        CheckpointError: The file cannot be used or does not fit; the model is left as it was.
        ValueError: An unknown argument value.
    """
    if inflation not in INFLATIONS:
        raise ValueError(f'inflation={inflation!r} is not known; use one of {INFLATIONS}.')
    if class_order is not None:
        class_names(class_order)
    network = _find_network(model)
    found = identify(checkpoint, prefix=prefix, ema=ema, folders=folders)
    try:
        report, state = _match(network, found, inflation)
        if 'head.weight' in report.loaded:
            found.provenance.check_class_order(class_order)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from None
    network.load_state_dict(state, strict=True)
    print_log(str(report), logger='current', level=logging.INFO)
    return report


def _find_network(model: nn.Module) -> UniFormer:
    found = [module for module in model.modules() if isinstance(module, UniFormer)]
    if len(found) != 1:
        raise ValueError(
            f'model: {type(model).__name__} contains {len(found)} UniFormers; pass the one '
            'backbone or classifier to load into.'
        )
    return found[0]


def _match(
    network: UniFormer, found: Identified, inflation: str
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Decide about every tensor; nothing is changed yet."""
    file, detected, in_file = found.file, found.detected, found.structure
    provenance = found.provenance
    model_state = network.state_dict()
    in_model = structure_of(model_state)
    model_arch = arch_name(network.arch) or 'custom'
    difference = first_difference(in_file, in_model, model_arch)
    if difference:
        keys = _telling_keys(detected, model_state)
        raise CheckpointError(f'{difference}. Telling keys: {keys}.')
    provenance.check_head_dim(network.arch, model_arch)

    state: dict[str, Tensor] = {}
    inflated: list[str] = []
    unused: dict[str, list[str]] = {}
    misfits: list[str] = []
    misshapen: set[str] = set()
    for key, value in detected.state.items():
        target = model_state.get(key)
        if target is None:
            reason = _why_unused(key, in_file, in_model)
            if reason is None:
                misfits.append(f'{detected.file_keys[key]} (no place in the model)')
            else:
                unused.setdefault(reason, []).append(detected.file_keys[key])
        elif value.shape == target.shape:
            state[key] = value
        elif key.split('.')[0] in HEADS:
            reason = f'classifier of {in_file.classes} classes, the model has {in_model.classes}'
            unused.setdefault(reason, []).append(detected.file_keys[key])
        elif can_inflate(value, target.shape):
            state[key] = inflate(value, target.shape, inflation)
            inflated.append(key)
        else:
            misshapen.add(key)
            misfits.append(
                f'{detected.file_keys[key]} {tuple(value.shape)}, the model has '
                f'{tuple(target.shape)}'
            )
    newly_initialised: dict[str, list[str]] = {}
    for key in model_state:
        if key not in state and key not in misshapen:
            reason = _why_new(key, in_file, in_model, detected.state)
            if reason is None:
                misfits.append(f'{key} (not in the file)')
            else:
                newly_initialised.setdefault(reason, []).append(key)
    if misfits:
        count = '1 tensor does' if len(misfits) == 1 else f'{len(misfits)} tensors do'
        more = f' and {len(misfits) - _TELLING} more' if len(misfits) > _TELLING else ''
        raise CheckpointError(
            f'{count} not fit: {"; ".join(misfits[:_TELLING])}{more}. The file '
            f'is {in_file.words()}; the model is {in_model.words()}.'
        )
    for part, keys in detected.others.items():
        unused[f'{part} of the whole model'] = keys
    report = LoadReport(
        source=f'{provenance.row_id} {file.path}' if provenance.row_id else str(file.path),
        arch=model_arch,
        head_dim=network.arch.head_dim,
        head_dim_source=provenance.head_dim_source(network.arch),
        class_order=provenance.class_order if 'head.weight' in state else None,
        sha256=file.sha256,
        loaded=tuple(state),
        inflated=tuple(inflated),
        unused={reason: tuple(keys) for reason, keys in unused.items()},
        newly_initialised={reason: tuple(keys) for reason, keys in newly_initialised.items()},
    )
    return report, {**model_state, **state}


def _why_unused(key: str, in_file: Structure, in_model: Structure) -> str | None:
    """The reason why a file's key has no place in a model that it fits, or None."""
    part = key.split('.')[0]
    if part in ('head', 'head_cls', 'norm_cls') and in_model.classes is None:
        return 'classifier'
    if part == 'aux_head' and (in_model.classes is None or in_model.classes != in_file.classes):
        return 'aux_head of token labelling'
    if part == 'norm' and not in_model.final_norm:
        return 'final BatchNorm'
    if part in ('norm1', 'norm2', 'norm3', 'norm4'):
        return 'output norms'
    stage = re.match(r'(?:patch_embed|blocks)(\d)$', _STAGE_OF.get(part, part))
    if stage and int(stage[1]) > len(in_model.depths):
        return 'stages that the model does not build'
    return None


def _why_new(
    key: str, in_file: Structure, in_model: Structure, state: Mapping[str, Tensor]
) -> str | None:
    """The reason why a model's key may be missing in a file that fits, or None."""
    part = key.split('.')[0]
    if part in HEADS and in_file.classes not in (None, in_model.classes):
        return f'classifier of {in_model.classes} classes'
    if '.gamma_' in key and scales_are_new(in_file, in_model):
        return 'residual scales, which image weights of lightweight models lack'
    norm = re.match(r'norm(\d)$', part)
    if norm and int(norm[1]) not in in_file.output_norms:
        return 'output norms of a dense model'
    if ('.t_norm.' in key or '.t_attn.' in key) and not in_file.divided:
        return 'temporal attention'
    if key.endswith('.num_batches_tracked') and not any(
        name.endswith('.num_batches_tracked') for name in state
    ):
        return 'BatchNorm counters'
    return None


def _telling_keys(detected: DetectedScheme, model_state: Mapping[str, Tensor]) -> str:
    """A few keys that only one side has, or whose shapes differ."""
    only_file = [k for k in detected.state if k not in model_state]
    only_model = [k for k in model_state if k not in detected.state]
    shapes = [
        f'{k} {tuple(v.shape)} in the file, {tuple(model_state[k].shape)} in the model'
        for k, v in detected.state.items()
        if k in model_state and v.shape != model_state[k].shape
    ]
    tail = ('head', 'aux_head', 'norm')
    parts = []
    for words, keys in (('only in the file', only_file), ('only in the model', only_model)):
        keys = [k for k in keys if not k.startswith(tail)][:_TELLING]
        if keys:
            parts.append(f'{words}: {", ".join(keys)}')
    return '; '.join(parts or shapes[:_TELLING] or ['none'])
