# SPDX-License-Identifier: Apache-2.0
"""How head_dim and the class order are known; neither can be read off the shapes.

qkv is a linear layer from C to 3 C whatever the heads are, so weights of another head_dim load
without complaint and lose 15 points of top-1 (Sense-X/UniFormer issue 16). The arch states the
model's side; this module collects what states the file's side and refuses a contradiction.
"""

from __future__ import annotations

import ast
import re
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import CheckpointError
from ..models.arch import ARCHS, Arch
from .files import Checkpoint
from .key_schemes import DetectedScheme
from .resolve import ResolvedFile
from .structure import Structure

FROM_ARCH = 'from the arch, not from the file'


@dataclass(frozen=True)
class Source:
    """One statement about a file, and what it rests on.

    Attributes:
        head_dim: The value it states.
        words: What it rests on.
        alternatives: Values that the same signs also stand for; they count only for an arch that
            was itself made for such files.
    """

    head_dim: int
    words: str
    alternatives: tuple[int, ...] = ()

    def allows(self, arch: Arch) -> bool:
        """Whether the arch's head_dim agrees."""
        return arch.head_dim == self.head_dim or (
            arch.token_labels and arch.head_dim in self.alternatives
        )


@dataclass(frozen=True)
class Provenance:
    """What is known about a file beside its tensors.

    Attributes:
        sources: Statements about head_dim, strongest first; none for files from elsewhere.
        class_order: Order of the classifier's rows, or None if not known.
        class_order_source: What that rests on.
        row_id: Zoo row, if the file is known.
    """

    sources: tuple[Source, ...] = ()
    class_order: str | None = None
    class_order_source: str = ''
    row_id: str | None = None

    def head_dim_source(self, arch: Arch) -> str:
        """Where the head_dim of an arch that no source contradicts is known from, in words."""
        agreeing = (source.words for source in self.sources if source.head_dim == arch.head_dim)
        return next(agreeing, FROM_ARCH)

    def check_head_dim(self, arch: Arch, arch_text: str) -> None:
        """Refuse an arch that a source contradicts.

        Raises:
            CheckpointError: Names both sides.
        """
        for source in self.sources:
            if not source.allows(arch):
                raise CheckpointError(
                    f'head_dim does not agree: the file was trained with {source.head_dim} '
                    f'({source.words}), the model has {arch.head_dim} (arch {arch_text}); no '
                    'shape shows it and the results would be wrong. Choose an arch with head_dim '
                    f'{source.head_dim}.'
                )

    def check_class_order(self, wanted: str | None) -> None:
        """Refuse a head whose rows are not known to be in the wanted order.

        Raises:
            CheckpointError: Names both orders.
        """
        if wanted is None or wanted == self.class_order:
            return
        if self.class_order is None:
            raise CheckpointError(
                f'the file does not say the class order, but {wanted!r} is wanted; state '
                'it once: uniformer-mm convert FILE --to official --class-order ORDER.'
            )
        raise CheckpointError(
            f'the rows of its head are in the order {self.class_order} '
            f'({self.class_order_source}), but {wanted!r} is wanted; permute them: uniformer-mm '
            f'convert FILE --to official --permute {wanted}.'
        )


def find_provenance(
    file: Checkpoint, detected: DetectedScheme, in_file: Structure, resolved: ResolvedFile
) -> Provenance:
    """Collect everything that speaks for a head_dim or an class order.

    Args:
        file: The file.
        detected: Its tensors by official names.
        in_file: Their structure.
        resolved: How the file was found.

    Returns:
        What is known, strongest first: our own record, the zoo, the training script's arguments
        or configuration, telling keys.
    """
    order, source = _class_order(file, detected, resolved)
    return Provenance(
        sources=tuple(_sources(file, in_file, resolved)),
        class_order=order,
        class_order_source=source,
        row_id=resolved.row.id if resolved.row else file.our_meta.get('row'),
    )


def _sources(file: Checkpoint, in_file: Structure, resolved: ResolvedFile) -> Iterator[Source]:
    known = False
    ours = file.our_meta.get('head_dim')
    if isinstance(ours, int):
        known = True
        yield Source(ours, 'recorded in the file by uniformer_mm')
    if resolved.row is not None:
        known = True
        how = {'name': 'zoo row', 'hash': 'its hash is that of zoo row'}[resolved.known_by]
        yield Source(resolved.row.head_dim, f'{how} {resolved.row.id}')
    if (entry := _trained_arch(file, in_file)) is not None:
        known = True
        yield Source(ARCHS[entry].head_dim, f'its training arguments name {entry}')
    if (configured := _configured_head_dim(file)) is not None:
        known = True
        yield Source(configured, 'its training configuration')
    archs = [name for name in in_file.archs() if ARCHS[name].token_labels]
    if in_file.token_labels and archs and not known:
        first, *others = (ARCHS[name].head_dim for name in archs)
        also = f'; the re-trained {archs[1]} has {others[0]}' if others else ''
        yield Source(first, f'aux_head keys: token labelling, {archs[0]}{also}', tuple(others))


def _trained_arch(file: Checkpoint, in_file: Structure) -> str | None:
    """Arch named by the official scripts' ``args.model``, if the tensors agree with it.

    One official script names another model than it trained, so the structure has the last word.
    """
    args = file.extras.get('args')
    model = getattr(args, 'model', None) if isinstance(args, Namespace) else None
    if not isinstance(model, str) or not model.startswith('uniformer_'):
        return None
    name = model.removeprefix('uniformer_')
    if in_file.token_labels:
        name = f'{name.removesuffix("_dim64")}_tl' + ('_dim64' if name.endswith('_dim64') else '')
    return name if name in in_file.archs() else None


def _configured_head_dim(file: Checkpoint) -> int | None:
    """head_dim in the configuration text that PySlowFast, mmcv or mmengine stored."""
    slowfast = file.extras.get('cfg')
    if isinstance(slowfast, str) and (match := re.search(r'\bHEAD_DIM:\s*(\d+)', slowfast)):
        return int(match[1])
    text = file.meta.get('cfg') or file.meta.get('config')
    if not isinstance(text, str):
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
            found = _head_dim_of({k.arg: k.value for k in node.keywords})
            if found is not None:
                return found
    return None


def _head_dim_of(arguments: dict[str | None, ast.expr]) -> int | None:
    """head_dim of one ``dict(type=...)`` of a configuration, if that is a UniFormer."""

    def literal(name: str) -> object:
        try:
            return ast.literal_eval(arguments[name])
        except (KeyError, ValueError):
            return None

    kind = literal('type')
    if not isinstance(kind, str) or not re.search(r'UniFormer(2d|3d)?(Classifier)?$', kind):
        return None
    if isinstance(head_dim := literal('head_dim'), int):
        return head_dim
    if isinstance(arch := literal('arch'), str) and arch in ARCHS:
        return ARCHS[arch].head_dim
    row = arguments.get('arch')
    if isinstance(row, ast.Call) and getattr(row.func, 'id', '') == 'dict':
        inner = {k.arg: k.value for k in row.keywords}.get('head_dim')
        return inner.value if isinstance(inner, ast.Constant) else None
    return None


def _class_order(
    file: Checkpoint, detected: DetectedScheme, resolved: ResolvedFile
) -> tuple[str | None, str]:
    ours = file.our_meta.get('class_order')
    if isinstance(ours, str):
        return ours, 'recorded in the file'
    if resolved.row is None or not resolved.row.class_order:
        return None, ''
    if resolved.mirror is not None and resolved.mirror.class_order:
        return resolved.mirror.class_order, f'this mirror of zoo row {resolved.row.id}'
    if detected.scheme == 'mmaction2':
        # Converted by someone under the row's name; whether the rows were permuted is not said.
        return None, ''
    return resolved.row.class_order, f'zoo row {resolved.row.id}'
