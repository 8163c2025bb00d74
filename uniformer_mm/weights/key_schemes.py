# SPDX-License-Identifier: Apache-2.0
"""Key schemes of UniFormer checkpoints, and the way between each and the official names.

Official names are this package's names (``models/uniformer.py``), so only files need renaming.
Schemes: the official flat one (also timm's, whose saver keeps the names), OpenMMLab's
(``backbone.`` and a head per toolbox) and openmixup's own names. Sources: Sense-X/UniFormer
@52a0415, Westlake-AI/openmixup @37e1372, mmaction2 1.2.0 and mmpose 1.3.2 wheels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import CheckpointError

# Classifier modules of the official names; the rest belongs to the trunk.
HEADS = ('head', 'aux_head', 'head_cls')
_FIELDS = {'conv': '[12]', 'attn': '[34]', 's': r'\d', 'i': r'\d+', 'n': '[12]', 'rest': '.+'}
# official name, openmixup name; both directions are read from the same rows.
_OPENMIXUP_NAMES = (
    ('patch_embed{s}.proj.{rest}', 'patch_embed{s}.projection.{rest}'),
    ('blocks{conv}.{i}.norm{n}.{rest}', 'blocks{conv}.{i}.bn{n}.{rest}'),
    ('blocks{attn}.{i}.norm{n}.{rest}', 'blocks{attn}.{i}.ln{n}.{rest}'),
    ('blocks{s}.{i}.mlp.{rest}', 'blocks{s}.{i}.ffn.{rest}'),
    ('norm.{rest}', 'norm3.{rest}'),
)


@dataclass(frozen=True)
class KeyScheme:
    """A key scheme that files are written in.

    Attributes:
        prefix: Before every trunk key.
        head: The classifier's linear layer; other heads lie beside it.
        two_headed: The same for classifiers with two heads, where those are kept elsewhere.
        names: Pairs of official and own trunk names, for those that differ.
        container: Top-level key of such files.
        rank: Rank that the scheme's code can use, or None for both.
        differs: What the scheme's code computes otherwise than the official one, for its users.
    """

    prefix: str = ''
    head: str = 'head'
    two_headed: str = ''
    names: tuple[tuple[str, str], ...] = ()
    container: str = 'state_dict'
    ndim: int | None = None
    differs: str = ''


KEY_SCHEMES: dict[str, KeyScheme] = {
    'official': KeyScheme(container='model'),
    'timm': KeyScheme(head='head.fc'),
    # mmpretrain and mmaction2 have no module for two heads: there the whole classifier is the
    # backbone.
    'mmpretrain': KeyScheme(prefix='backbone.', head='head.fc', two_headed='backbone.head', ndim=2),
    'mmaction2': KeyScheme(
        prefix='backbone.',
        head='cls_head.fc_cls',
        two_headed='backbone.head',
        ndim=3,
        differs='LayerNorm eps 1e-5 in blocks instead of 1e-6 (2e-5 of the logits on a small '
        'random network)',
    ),
    'openmixup': KeyScheme(
        prefix='backbone.',
        head='head.fc',
        names=_OPENMIXUP_NAMES,
        ndim=2,
        differs='LayerNorm eps 1e-6 in patch embeddings instead of 1e-5; layer scale is on by '
        'default, so set init_values=0 for weights without it',
    ),
    'mmpose': KeyScheme(differs='LayerNorm eps 1e-5 in blocks instead of 1e-6'),
}
_POSE_HEAD = re.compile(r'(?:keypoint_head|head)\.((?:deconv_layers|final_layer)\..+)')


@dataclass(frozen=True)
class DetectedScheme:
    """A state dict read in official names.

    Attributes:
        scheme: Its name: a key of :data:`KEY_SCHEMES`, or ``'openmmlab'`` for detectors,
            segmentors and pose estimators.
        prefix: What stood before the trunk's keys.
        state: Trunk and classifier heads by official names.
        file_keys: Official name to the file's key.
        others: Keys of the other parts of a whole model, by part (``neck``, ``roi_head``, ...).
    """

    scheme: str
    prefix: str
    state: dict[str, Tensor]
    file_keys: dict[str, str]
    others: dict[str, list[str]] = field(default_factory=dict)


def detect_scheme(state: Mapping[str, Tensor], prefix: str | None = None) -> DetectedScheme:
    """Read a state dict of any known scheme in official names.

    Args:
        state: Tensors by the file's keys.
        prefix: What stands before the trunk's keys; None finds ``''`` or ``'backbone.'`` (after
            ``module.``), and nothing else, since another prefix may be another network.

    Returns:
        The same tensors under official names.

    Raises:
        CheckpointError: No UniFormer under the prefix, or only under another one.
    """
    keys = {strip_wrapper(key): key for key in state}
    prefix = _find_prefix(keys, prefix)
    openmixup = any(key.startswith((f'{prefix}patch_embed1.projection.',)) for key in keys)
    rename = renamer(_OPENMIXUP_NAMES, to_official=True) if openmixup else lambda key: key
    file_keys: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    head_scheme = None
    ndim = _ndim(state[original] for key, original in keys.items() if _is_stem(key, prefix))
    for key, original in keys.items():
        head = _head_name(key, prefix, ndim)
        if head is not None:
            head_scheme, name = head
        elif key.startswith(prefix):
            name = rename(key[len(prefix) :])
        else:
            others.setdefault(key.split('.')[0], []).append(original)
            continue
        file_keys[name] = original
    if openmixup:
        scheme = 'openmixup'
    elif head_scheme:
        scheme = head_scheme
    else:
        scheme = 'openmmlab' if prefix or others else 'official'
    return DetectedScheme(
        scheme=scheme,
        prefix=prefix,
        state={name: state[original] for name, original in file_keys.items()},
        file_keys=file_keys,
        others=others,
    )


def strip_wrapper(key: str) -> str:
    """The key without the ``module.`` that data-parallel and averaging wrappers put first."""
    while key.startswith('module.'):
        key = key[len('module.') :]
    return key


def renamer(names: Iterable[tuple[str, str]], *, to_official: bool):
    """The function that renames one trunk key by ``names``; other keys stay as they are."""
    rules = []
    for official, own in names:
        source, target = (own, official) if to_official else (official, own)
        pattern = re.escape(source)
        for name, choices in _FIELDS.items():
            pattern = pattern.replace(re.escape(f'{{{name}}}'), f'(?P<{name}>{choices})')
        rules.append((re.compile(pattern), target))

    def rename(key: str) -> str:
        for pattern, target in rules:
            if match := pattern.fullmatch(key):
                return target.format(**match.groupdict())
        return key

    return rename


def _is_stem(key: str, prefix: str) -> bool:
    """Whether a key is that of the network's first weight."""
    names = r'patch_embed1\.(?:proj|projection)(?:\.0)?\.weight'
    return key.startswith(prefix) and bool(re.fullmatch(names, key[len(prefix) :]))


def _ndim(stems: Iterable[Tensor]) -> int | None:
    """2 or 3, or None without a first weight."""
    return next((stem.ndim - 2 for stem in stems), None)


def _head_name(key: str, prefix: str, ndim: int | None) -> tuple[str, str] | None:
    """Layout and official name of a key that stands for a classifier head outside the trunk."""
    for name, scheme in KEY_SCHEMES.items():
        if scheme.prefix != prefix or scheme.names or scheme.head in HEADS:
            continue
        if scheme.ndim not in (None, ndim):
            continue
        for own in filter(None, (scheme.head, scheme.two_headed)):
            module, _, _ = own.rpartition('.')
            if key in (f'{own}.weight', f'{own}.bias'):
                return name, f'head{key[len(own) :]}'
            for other in HEADS[1:]:
                if key.startswith(f'{module}.{other}.'):
                    return name, key[len(module) + 1 :]
    return None


def _find_prefix(keys: Mapping[str, str], wanted: str | None) -> str:
    found = {
        match[1]
        for key in keys
        if (match := re.match(r'(.*?)patch_embed1\.(?:proj|projection)\.', key))
    }
    if wanted is not None:
        wanted = strip_wrapper(wanted if wanted.endswith('.') or not wanted else wanted + '.')
        if wanted in found:
            return wanted
    else:
        for prefix in ('', 'backbone.'):
            if prefix in found:
                return prefix
    some = sorted(keys)[:4]
    if found:
        names = ' or '.join(f'{prefix!r}' for prefix in sorted(found))
        first = min(found)
        tried = (
            f'under {wanted!r}' if wanted is not None else "at the top level or under 'backbone.'"
        )
        raise CheckpointError(
            f'it holds no UniFormer {tried}, but one under {names}; if that is the one you mean, '
            f'name it with prefix={first!r}.'
        )
    raise CheckpointError(
        f'it holds no UniFormer: no key has patch_embed1.proj; its keys begin {some}.'
    )


def write_scheme(
    state: Mapping[str, Tensor], detected: DetectedScheme, to: str
) -> dict[str, Tensor]:
    """Rename a state dict to another scheme; every tensor keeps its value and gets one name.

    Whole detectors, segmentors and pose estimators stay under ``backbone.`` beside their other
    parts; of those only the pose head is named differently (``keypoint_head``, ``head`` in mmpose).

    Args:
        state: Tensors by the file's keys.
        detected: What :func:`detect_scheme` said about them.
        to: A key of :data:`KEY_SCHEMES`.

    Returns:
        The tensors by the scheme's keys, in the file's order.

    Raises:
        CheckpointError: The scheme has no place for this kind of network.
    """
    if to not in KEY_SCHEMES:
        raise ValueError(f'to={to!r} is not known; use one of {tuple(KEY_SCHEMES)}.')
    scheme = KEY_SCHEMES[to]
    ndim = _ndim(value for key, value in detected.state.items() if _is_stem(key, ''))
    dense = bool(detected.others) or 'norm1.weight' in detected.state
    if dense and to not in ('official', 'mmpose'):
        raise CheckpointError(
            f'{to} keys are for classifiers, this is a dense network '
            f'({", ".join(detected.others) or "output norms"}); use official, mmpose or '
            'safetensors.'
        )
    if scheme.ndim not in (None, ndim):
        raise CheckpointError(f'{to} has a {scheme.ndim}-D UniFormer only; this one is {ndim}-D.')
    if scheme.names and any('.t_attn.' in key for key in detected.state):
        raise CheckpointError(f'{to} has no divided attention (t_attn keys).')
    rename = renamer(scheme.names, to_official=False)
    has_two = any(f'{head}.weight' in detected.state for head in HEADS[1:])
    head = (has_two and scheme.two_headed) or scheme.head
    own_name = {original: name for name, original in detected.file_keys.items()}
    prefix = detected.prefix if dense else scheme.prefix
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = own_name.get(key)
        if name is None:
            name = _other_part(strip_wrapper(key), to)
        elif name.split('.')[0] in HEADS and not dense:
            name = _write_head(name, head)
        else:
            name = prefix + rename(name)
        if name in renamed:
            raise CheckpointError(f'two tensors would both be called {name} in {to} keys.')
        renamed[name] = value
    return renamed


def _write_head(name: str, head: str) -> str:
    module, _, rest = name.partition('.')
    if module == 'head':
        return f'{head}.{rest}'
    beside = head.rpartition('.')[0]
    return f'{beside}.{name}' if beside else name


def _other_part(key: str, to: str) -> str:
    if match := _POSE_HEAD.fullmatch(key):
        return ('head.' if to == 'mmpose' else 'keypoint_head.') + match[1]
    return key
