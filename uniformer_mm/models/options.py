# SPDX-License-Identifier: Apache-2.0
"""The options of the backbone: which are known, and what their values may be.

Every function raises :class:`ValueError` with one sentence that names option, value and remedy.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence

from ..checks import check_bool, is_integer, is_number
from .arch import NUM_STAGES, Arch

ATTENTIONS = ('global', 'window', 'hybrid', 'divided')
OUT_NORMS = ('auto', 'ln', 'bn', None)
RESIDUAL_DTYPES = ('float32', 'autocast')

# Arguments of the official code and its ports, and what says the same here.
_INITIALIZER = "init_cfg=dict(type='uniformer_mm.UniFormerPretrained', checkpoint=...)"
OFFICIAL_OPTIONS = {
    'windows': "attention='window'",
    'window': "attention='window'",
    'use_window': "attention='window'",
    'hybrid': "attention='hybrid'",
    'use_hybrid': "attention='hybrid'",
    'windows_size': 'window_size',
    'split': "attention='divided'",
    'std': 'patch_kernel_t=3',
    'use_checkpoint': 'with_cp=True',
    'checkpoint_num': 'with_cp=(n1, n2, n3, n4)',
    'in_chans': 'in_channels',
    'layers': 'arch=dict(depths=...)',
    'depth': 'arch=dict(depths=...)',
    'embed_dim': 'arch=dict(dims=...)',
    'mlp_ratio': 'arch=dict(mlp_ratio=...)',
    'pretrained': f'checkpoint=... of create_model, or {_INITIALIZER}',
    'pretrained_path': f'checkpoint=... of create_model, or {_INITIALIZER}',
    'checkpoint': _INITIALIZER,
}


def option_names(cls: type) -> list[str]:
    """Names of the keyword-only options of a network, those of its classes between included."""
    names = {
        name: None
        for base in cls.__mro__
        for name, parameter in inspect.signature(base.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return list(names)


def check_options(options: Iterable[str], known: Sequence[str]) -> None:
    """Refuse options that are not ``known``, with the name here of one of the official code.

    Raises:
        ValueError: The first unknown option.
    """
    for option in options:
        if option in known:
            continue
        if option in OFFICIAL_OPTIONS:
            raise ValueError(f'option {option!r} is written {OFFICIAL_OPTIONS[option]} here.')
        close = difflib.get_close_matches(option, known, n=1)
        raise ValueError(
            f'option {option!r} is not known; '
            + (f'did you mean {close[0]!r}?' if close else f'use some of {list(known)}.')
        )


def check_attention(attention: str, ndim: int, arch: Arch) -> str:
    """How stage 3 attends, which must go with ndim and arch."""
    if attention not in ATTENTIONS:
        raise ValueError(f'attention={attention!r} is not known; use one of {ATTENTIONS}.')
    if arch.keep_ratios is not None and attention != 'global':
        raise ValueError(
            f'attention={attention!r} does not go with an hourglass arch, whose blocks choose '
            "their tokens by score; use attention='global', or an arch without keep_ratios."
        )
    if attention == 'divided' and ndim == 2:
        raise ValueError(
            "attention='divided' attends over time and so needs the 3-D network; use UniFormer3d, "
            "or 'global', 'window' or 'hybrid' in 2-D."
        )
    return attention


def check_positive(name: str, value: int) -> int:
    """A positive integer."""
    if not is_integer(value) or value < 1:
        raise ValueError(f'{name}={value!r} must be a positive integer.')
    return value


def check_frozen_stages(frozen_stages: int) -> int:
    """A number of leading stages; -1 for none."""
    if not is_integer(frozen_stages) or not -1 <= frozen_stages <= NUM_STAGES:
        raise ValueError(
            f'frozen_stages={frozen_stages!r} must be the number of leading stages to freeze, 0 '
            f'(or -1) to {NUM_STAGES}.'
        )
    return frozen_stages


def check_residual_dtype(residual_dtype: str) -> str:
    """The dtype of the residual stream under autocast."""
    if residual_dtype not in RESIDUAL_DTYPES:
        raise ValueError(
            f'residual_dtype={residual_dtype!r} is not known; use one of {RESIDUAL_DTYPES}.'
        )
    return residual_dtype


def check_with_cp(with_cp: bool | Sequence[int], depths: tuple[int, ...]) -> tuple[int, ...]:
    """The number of leading blocks of each stage that are checkpointed."""
    if isinstance(with_cp, bool):
        return depths if with_cp else (0,) * NUM_STAGES
    blocks = tuple(with_cp) if isinstance(with_cp, Sequence) else ()
    if len(blocks) != NUM_STAGES or any(not is_integer(n) or n < 0 for n in blocks):
        raise ValueError(
            f'with_cp={with_cp!r} must be True, False or {NUM_STAGES} numbers of leading blocks to '
            'checkpoint, such as (0, 0, 8, 0).'
        )
    if any(n > depth for n, depth in zip(blocks, depths, strict=True)):
        raise ValueError(f'with_cp={blocks} asks for more blocks than the stages have: {depths}.')
    return blocks


def check_drop_path_rate(rate: float) -> float:
    """A number from 0 to below 1."""
    if not is_number(rate) or not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate={rate!r} must be a number of at least 0 and below 1.')
    return rate


def check_patch_kernel_t(kernel: int, ndim: int) -> int:
    """1, or 3 for clips."""
    if not is_integer(kernel) or kernel not in ((1,) if ndim == 2 else (1, 3)):
        raise ValueError(f'patch_kernel_t={kernel!r} must be 1 or 3, and 1 in a 2-D network.')
    return kernel


def check_out_indices(
    out_indices: int | Sequence[int] | None, default: tuple[int, ...]
) -> tuple[int, ...]:
    """Stages in rising order, counted from 0."""
    if out_indices is None:
        return default
    given = tuple(out_indices) if isinstance(out_indices, Iterable) else (out_indices,)
    valid = all(is_integer(i) and -NUM_STAGES <= i < NUM_STAGES for i in given)
    wrapped = tuple(i % NUM_STAGES for i in given) if valid else ()
    if not wrapped or list(wrapped) != sorted(set(wrapped)):
        raise ValueError(
            f'out_indices={out_indices!r} must be different stages in rising order, each 0 to '
            f'{NUM_STAGES - 1} (or -{NUM_STAGES} to -1 from the end).'
        )
    return wrapped


def check_out_norm(out_norm: str | None, out_indices: tuple[int, ...], single: str) -> str | None:
    """The kind of the output norms; ``single`` is what ``'auto'`` means for stage 4 alone."""
    if out_norm not in OUT_NORMS:
        raise ValueError(f'out_norm={out_norm!r} is not known; use one of {OUT_NORMS}.')
    last_only = out_indices == (NUM_STAGES - 1,)
    if out_norm == 'auto':
        return single if last_only else 'ln'
    if out_norm == 'bn' and not last_only:
        raise ValueError(
            f"out_norm='bn' is the classifier's norm after stage 4, but out_indices="
            f"{out_indices}; use out_indices=(3,) or out_norm='ln'."
        )
    return out_norm


def check_as_tuple(as_tuple: bool | None, out_indices: tuple[int, ...], default: bool) -> bool:
    """Whether outputs come in a tuple; ``default`` holds for a single one."""
    single = len(out_indices) == 1
    if as_tuple is None:
        return default or not single
    check_bool('as_tuple', as_tuple)
    if not as_tuple and not single:
        raise ValueError(
            f'as_tuple=False returns one bare map, but out_indices={out_indices} asks for '
            f'{len(out_indices)}; leave it out or ask for one stage.'
        )
    return as_tuple
