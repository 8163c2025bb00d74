# SPDX-License-Identifier: Apache-2.0
"""How head_dim and the order of classes are known; neither can be read off the shapes.

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
from .layouts import Recognised
from .lookup import Located
from .signature import Signature

FROM_ARCH = 'from the arch, not from the file'


@dataclass(frozen=True)
class Claim:
    """One statement about a file.

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
class Evidence:
    """What is known about a file beside its tensors.

    Attributes:
        claims: Statements about head_dim, strongest first; none for files from elsewhere.
        class_order: Order of the classifier's rows, or None if not known.
        class_order_source: What that rests on.
        row_id: Zoo row, if the file is known.
    """

    claims: tuple[Claim, ...] = ()
    class_order: str | None = None
    class_order_source: str = ''
    row_id: str | None = None

    def head_dim_source(self, arch: Arch) -> str:
        """Where the head_dim of an arch that no claim contradicts is known from, in words."""
        agreeing = (claim.words for claim in self.claims if claim.head_dim == arch.head_dim)
        return next(agreeing, FROM_ARCH)

    def check_head_dim(self, arch: Arch, arch_words: str) -> None:
        """Refuse an arch that a claim contradicts.

        Raises:
            CheckpointError: Names both sides.
        """
        for claim in self.claims:
            if not claim.allows(arch):
                raise CheckpointError(
                    f'head_dim does not agree: the file was trained with {claim.head_dim} '
                    f'({claim.words}), the model has {arch.head_dim} (arch {arch_words}); no shape '
                    'shows it and the results would be wrong. Choose an arch with head_dim '
                    f'{claim.head_dim}.'
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
                f'the file does not say the order of its classes, but {wanted!r} is wanted; state '
                'it once: uniformer-mm convert FILE --to official --class-order ORDER.'
            )
        raise CheckpointError(
            f'the rows of its head are in the order {self.class_order} '
            f'({self.class_order_source}), but {wanted!r} is wanted; permute them: uniformer-mm '
            f'convert FILE --to official --permute {wanted}.'
        )


def gather(file: Checkpoint, recognised: Recognised, held: Signature, located: Located) -> Evidence:
    """Collect everything that speaks for a head_dim or an order of classes.

    Args:
        file: The file.
        recognised: Its tensors by official names.
        held: Their structure.
        located: How the file was found.

    Returns:
        The evidence, strongest first: our own record, the zoo, the training script's arguments
        or configuration, telling keys.
    """
    order, source = _class_order(file, recognised, located)
    return Evidence(
        claims=tuple(_claims(file, held, located)),
        class_order=order,
        class_order_source=source,
        row_id=located.row.id if located.row else file.our_meta.get('row'),
    )


def _claims(file: Checkpoint, held: Signature, located: Located) -> Iterator[Claim]:
    known = False
    ours = file.our_meta.get('head_dim')
    if isinstance(ours, int):
        known = True
        yield Claim(ours, 'recorded in the file by uniformer_mm')
    if located.row is not None:
        known = True
        how = {'name': 'zoo row', 'hash': 'its hash is that of zoo row'}[located.known_by]
        yield Claim(located.row.head_dim, f'{how} {located.row.id}')
    if (entry := _trained_arch(file, held)) is not None:
        known = True
        yield Claim(ARCHS[entry].head_dim, f'its training arguments name {entry}')
    if (configured := _configured_head_dim(file)) is not None:
        known = True
        yield Claim(configured, 'its training configuration')
    archs = [name for name in held.archs() if ARCHS[name].token_labels]
    if held.token_labels and archs and not known:
        first, *others = (ARCHS[name].head_dim for name in archs)
        also = f'; the re-trained {archs[1]} has {others[0]}' if others else ''
        yield Claim(first, f'aux_head keys: token labelling, {archs[0]}{also}', tuple(others))


def _trained_arch(file: Checkpoint, held: Signature) -> str | None:
    """Arch named by the official scripts' ``args.model``, if the tensors agree with it.

    One official script names another model than it trained, so the structure has the last word.
    """
    args = file.extras.get('args')
    model = getattr(args, 'model', None) if isinstance(args, Namespace) else None
    if not isinstance(model, str) or not model.startswith('uniformer_'):
        return None
    name = model.removeprefix('uniformer_')
    if held.token_labels:
        name = f'{name.removesuffix("_dim64")}_tl' + ('_dim64' if name.endswith('_dim64') else '')
    return name if name in held.archs() else None


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
    file: Checkpoint, recognised: Recognised, located: Located
) -> tuple[str | None, str]:
    ours = file.our_meta.get('class_order')
    if isinstance(ours, str):
        return ours, 'recorded in the file'
    if located.row is None or not located.row.class_order:
        return None, ''
    if located.host is not None and located.host.class_order:
        return located.host.class_order, f'this host of zoo row {located.row.id}'
    if recognised.layout == 'mmaction2':
        # Converted by someone under the row's name; whether the rows were permuted is not said.
        return None, ''
    return located.row.class_order, f'zoo row {located.row.id}'
