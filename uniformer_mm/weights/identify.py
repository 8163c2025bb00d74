# SPDX-License-Identifier: Apache-2.0
"""From a path or a name to everything that is known about a checkpoint, for whoever opens one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from ..errors import CheckpointError
from .files import Checkpoint, read_checkpoint
from .key_schemes import DetectedScheme, detect_scheme
from .provenance import Provenance, find_provenance
from .resolve import ResolvedFile, resolve_file
from .structure import Structure, structure_of


@dataclass(frozen=True)
class Identified:
    """A checkpoint and what it is.

    Attributes:
        resolved: Where the file lies, and its zoo row if it has one.
        file: What the file holds, by its own keys.
        detected: Its key scheme, and its tensors by official names.
        structure: The network that the tensors are of.
        provenance: What is known of head_dim and class order, and from where.
    """

    resolved: ResolvedFile
    file: Checkpoint
    detected: DetectedScheme
    structure: Structure
    provenance: Provenance


def identify(
    checkpoint: str | PathLike,
    *,
    prefix: str | None = None,
    ema: bool = False,
    folders: Sequence[str | PathLike] = (),
) -> Identified:
    """Find and read a checkpoint.

    Args:
        checkpoint: Path, URL or ``uniformer://`` name.
        prefix: What stands before the trunk's keys, if it is not ``'backbone.'``.
        ema: Take the averaged weights of a training checkpoint.
        folders: More folders to look for a zoo name in.

    Returns:
        The checkpoint; its tensors are on the CPU.

    Raises:
        CheckpointError: The file is not there, cannot be read or holds no UniFormer.
    """
    resolved = resolve_file(checkpoint, folders=folders)
    file = read_checkpoint(resolved.path, ema=ema, digests=resolved.digests)
    try:
        detected = detect_scheme(file.state, prefix)
        structure = structure_of(detected.state)
        provenance = find_provenance(file, detected, structure, resolved)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from None
    return Identified(resolved, file, detected, structure, provenance)
