# SPDX-License-Identifier: Apache-2.0
"""Rewriting checkpoints in another scheme, container or class order, without loss."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..files import replacing
from ..labels import class_names, permutation
from ..models.arch import ARCHS
from ..models.state_dict import META_KEY
from .identify import identify
from .key_schemes import KEY_SCHEMES, DetectedScheme, write_scheme
from .provenance import Provenance
from .structure import Structure

SAFETENSORS = 'safetensors'
TARGETS = (*KEY_SCHEMES, SAFETENSORS)
_HEADS = ('head', 'aux_head', 'head_cls')


def convert_file(
    checkpoint: str | PathLike,
    *,
    to: str,
    output: str | PathLike | None = None,
    class_order: str | None = None,
    permute: str | None = None,
    arch: str | None = None,
    prefix: str | None = None,
    ema: bool = False,
    overwrite: bool = False,
) -> tuple[Path, dict]:
    """Write a checkpoint in another scheme, with a record of what is known in its ``meta``.

    Tensors keep their values; optimizer and log states are left out. Kinetics heads are permuted
    only if ``permute`` says so, or if the target's toolbox uses the other order than the file is
    known to have (mmaction2 the alphabetical, official the authors').

    Args:
        checkpoint: Path or ``uniformer://`` name.
        to: One of ``KEY_SCHEMES``, or ``'safetensors'`` (keys stay as they are).
        output: Path to write; default: the file's name with the target appended, beside it.
        class_order: States the order that the head's rows have now, where the file does not.
        permute: Order to bring them into.
        arch: States the arch, and so head_dim, where the file does not.
        prefix: What stands before the trunk's keys, if it is not ``'backbone.'``.
        ema: Take the averaged weights of a training checkpoint.
        overwrite: Replace an existing output.

    Returns:
        The path that was written and the record in its ``meta['uniformer_mm']``.

    Raises:
        CheckpointError: The file cannot be used, or contradicts what was stated.
        ValueError: An unknown argument value, or an output that exists or cannot be written.
    """
    if to not in TARGETS:
        raise ValueError(f'to={to!r} is not known; use one of {TARGETS}.')
    found = identify(checkpoint, prefix=prefix, ema=ema)
    file, detected, in_file = found.file, found.detected, found.structure
    provenance = found.provenance
    target = _target_path(file.path, output, to, overwrite)

    have = _stated_order(provenance, class_order, in_file)
    want = permute or _usual_order(to, have)
    state = dict(file.state)
    if want is not None and want != have:
        state = _permuted(state, detected, have, want, in_file)
    if to != SAFETENSORS:
        state = write_scheme(state, detected, to)
    ours = {
        **file.our_meta,
        **_known(provenance, in_file, arch),
        'class_order': want or have,
        'layout': detected.scheme if to == SAFETENSORS else to,
        'source_sha256': file.sha256,
    }
    ours = {name: value for name, value in ours.items() if value is not None}
    container = KEY_SCHEMES[to].container if to != SAFETENSORS else ''
    if to == 'official':
        whole = detected.others or in_file.output_norms
        container = 'state_dict' if whole else 'model_state' if in_file.ndim == 3 else container
    _write(target, state, container, {**file.meta, META_KEY: ours})
    return target, ours


def _target_path(source: Path, output: str | PathLike | None, to: str, overwrite: bool) -> Path:
    suffix = '.safetensors' if to == SAFETENSORS else '.pth'
    name = source.stem if to == SAFETENSORS else f'{source.stem}_{to}'
    target = Path(output) if output is not None else source.with_name(name + suffix)
    if to == SAFETENSORS and target.suffix != '.safetensors':
        raise ValueError(f'output={str(target)!r} must end in .safetensors.')
    if target.is_dir():
        raise ValueError(f'output={str(target)!r} is a folder; name a file in it.')
    if target.exists() and not overwrite:
        raise ValueError(
            f'output={str(target)!r} exists; choose another name, or overwrite=True to replace it.'
        )
    if not target.parent.is_dir():
        raise ValueError(
            f'output={str(target)!r}: there is no folder {target.parent}; make it or name another.'
        )
    return target


def _stated_order(provenance: Provenance, stated: str | None, in_file: Structure) -> str | None:
    known = provenance.class_order
    if stated is None:
        return known
    if known is not None and known != stated:
        raise CheckpointError(
            f'class_order={stated!r} contradicts the file, whose rows are in the order {known} '
            f'({provenance.class_order_source}); use permute=ORDER to change the order.'
        )
    if in_file.classes != len(class_names(stated)):
        raise CheckpointError(
            f'class_order={stated!r} has {len(class_names(stated))} classes, the file '
            + (f'has {in_file.classes}.' if in_file.classes else 'has no classifier.')
        )
    return stated


def _usual_order(to: str, have: str | None) -> str | None:
    """The order that the target's code expects, if the file's order is known."""
    wanted = {'mmaction2': 'alphabetical', 'official': 'official'}.get(to)
    if have is None or wanted is None:
        return have
    return f'{have.rpartition("_")[0]}_{wanted}'


def _permuted(
    state: dict[str, Tensor],
    detected: DetectedScheme,
    have: str | None,
    want: str,
    in_file: Structure,
) -> dict[str, Tensor]:
    if have is None:
        raise CheckpointError(
            f'permute={want!r}: the file does not say which order its classes have now; state it '
            'with class_order=ORDER.'
        )
    rows = permutation(have, want)
    if in_file.classes != len(rows):
        raise CheckpointError(
            f'permute={want!r} has {len(rows)} classes, the classifier has {in_file.classes}.'
        )
    index = torch.tensor(rows)
    return {key: value[index] if _is_head(key, detected) else value for key, value in state.items()}


def _is_head(key: str, detected: DetectedScheme) -> bool:
    return any(
        original == key and name.split('.')[0] in _HEADS
        for name, original in detected.file_keys.items()
    )


def _known(provenance: Provenance, in_file: Structure, stated: str | None) -> dict:
    """What can be recorded: arch and head_dim only if something states them."""
    candidates = in_file.archs()
    if stated is not None:
        if stated not in candidates:
            raise CheckpointError(
                f'arch={stated!r} does not fit the tensors; they are those of '
                f'{" or ".join(candidates) or "no arch of the table"}.'
            )
        provenance.check_head_dim(ARCHS[stated], stated)
        return {'arch': stated, 'head_dim': ARCHS[stated].head_dim, 'rank': in_file.ndim}
    sure = [source for source in provenance.sources if not source.alternatives]
    head_dim = sure[0].head_dim if sure else None
    fitting = [name for name in candidates if ARCHS[name].head_dim == head_dim]
    return {
        'row': provenance.row_id,
        'rank': in_file.ndim,
        'head_dim': head_dim,
        'arch': fitting[0] if fitting else None,
    }


def _write(target: Path, state: Mapping[str, Tensor], container: str, meta: dict) -> None:
    named = f'output={str(target)!r}'
    try:
        with replacing(target, named) as temporary:
            temporary.touch()
            if container:
                torch.save({container: dict(state), 'meta': meta}, temporary)
            else:
                _write_safetensors(temporary, state, meta)
    except RuntimeError as error:  # torch's, where the disk is full
        raise ValueError(f'{named}: cannot be written ({error}); name another place.') from error


def _write_safetensors(path: Path, state: Mapping[str, Tensor], meta: dict) -> None:
    if importlib.util.find_spec('safetensors') is None:
        raise CheckpointError('writing needs the safetensors package: pip install safetensors.')
    from safetensors.torch import save_file

    # safetensors holds text only: our record, and what else of the meta is plain text.
    texts = {name: value for name, value in meta.items() if isinstance(value, str)}
    record = {**texts, 'format': 'pt', META_KEY: json.dumps(meta[META_KEY])}
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=record)
