# SPDX-License-Identifier: Apache-2.0
"""The UniFormer family as a table.

Sources: arXiv 2201.09450 (tables 1, 2, 3 and appendix), Sense-X/UniFormer @52a0415
``image_classification/models/uniformer.py`` and ``uniformer_light.py``,
``token_labeling/tlt/models/uniformer.py``; ``tiny`` from Westlake-AI/openmixup @37e1372.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from ..checks import check_bool, is_integer, is_number, is_positive

NUM_STAGES = 4


@dataclass(frozen=True)
class Arch:
    """One row of the family table.

    Attributes:
        depths: Blocks per stage.
        dims: Channels per stage.
        head_dim: Channels per attention head. No tensor's shape depends on it, so a checkpoint
            trained with another value loads without complaint and is wrong.
        mlp_ratio: Hidden width of the MLPs in multiples of the stage width. Four equal numbers, as
            the official light models write it, are read as one.
        stem: ``'patch'`` (one k = s = 4 convolution, LayerNorm) or ``'conv'`` (two 3x3
            convolutions of stride 2, BatchNorm).
        downsample: The same choice for stages 2 to 4 (k = s = 2, or one 3x3 of stride 2);
            ``'patch'`` with ``keep_ratios``.
        layer_scale: Initial value of the residual scales; None builds none.
        layer_scale_in: ``'attention'`` (stages 3 and 4) or ``'all'`` blocks.
        token_labels: Whether the classifier has the dense head of token labelling.
        keep_ratios: Share of tokens kept by each block of stages 3 and 4 (hourglass archs, see
            ``hourglass.py``); the first is 1. None builds blocks without class token and scores.
        params: Parameters of the 2-D classifier with 1000 classes; None for a custom arch.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    head_dim: int = 64
    mlp_ratio: float = 4
    stem: str = 'patch'
    downsample: str = 'patch'
    layer_scale: float | None = None
    layer_scale_in: str = 'all'
    token_labels: bool = False
    keep_ratios: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    params: int | None = None

    def __post_init__(self) -> None:
        for name in ('depths', 'dims'):
            given = getattr(self, name)
            values = tuple(given) if isinstance(given, Sequence) else ()
            if len(values) != NUM_STAGES or any(not is_integer(v) or v < 1 for v in values):
                raise ValueError(
                    f'arch: {name}={given!r} must hold {NUM_STAGES} positive integers, '
                    'one for each stage.'
                )
            object.__setattr__(self, name, values)
        for name, allowed in (
            ('stem', ('patch', 'conv')),
            ('downsample', ('patch', 'conv')),
            ('layer_scale_in', ('attention', 'all')),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'arch: {name}={getattr(self, name)!r} is not known; use one of {allowed}.'
                )
        if not is_integer(self.head_dim) or self.head_dim < 1:
            raise ValueError(f'arch: head_dim={self.head_dim!r} must be a positive integer.')
        for stage in (2, 3):
            if self.dims[stage] % self.head_dim:
                raise ValueError(
                    f'arch: head_dim={self.head_dim} does not divide the {self.dims[stage]} '
                    f'channels of stage {stage + 1}; use a divisor of stages 3 and 4 '
                    f'{self.dims[2:]}, such as 32 or 64.'
                )
        check_bool('arch: token_labels', self.token_labels)
        self._check_mlp_ratio()
        if self.layer_scale is not None:
            if not is_positive(self.layer_scale):
                raise ValueError(
                    f'arch: layer_scale={self.layer_scale!r} must be a positive number (the '
                    'initial value) or None (no scales).'
                )
            object.__setattr__(self, 'layer_scale', float(self.layer_scale))
        if self.keep_ratios is not None:
            self._check_keep_ratios()

    def _check_mlp_ratio(self) -> None:
        given = ratio = self.mlp_ratio
        if isinstance(given, Sequence) and len(given) == NUM_STAGES and len(set(given)) == 1:
            ratio = given[0]
        if not is_positive(ratio):
            raise ValueError(
                f'arch: mlp_ratio={given!r} must be a positive number, the same in all stages.'
            )
        if int(min(self.dims) * ratio) < 1:
            raise ValueError(
                f'arch: mlp_ratio={given!r} leaves no hidden channel of the {min(self.dims)} of a '
                'stage; use a larger one, such as 4.'
            )
        object.__setattr__(self, 'mlp_ratio', ratio)

    def _check_keep_ratios(self) -> None:
        given = self.keep_ratios
        stages = tuple(map(tuple, given)) if _is_nested(given) else ()
        object.__setattr__(self, 'keep_ratios', stages)
        valid = tuple(map(len, stages)) == self.depths[2:] and all(
            isinstance(ratio, (int, float)) and is_number(ratio) and 0 < ratio <= 1
            for stage in stages
            for ratio in stage
        )
        if not valid or stages[0][0] != 1:
            raise ValueError(
                f'arch: keep_ratios={given!r} must hold two sequences of shares above 0 to 1, one '
                f'share for each block of stages 3 and 4 {self.depths[2:]}, and begin with 1, '
                'since nothing has scored the tokens before the first block.'
            )
        if self.token_labels:
            raise ValueError(
                'arch: token_labels=True does not go with keep_ratios; leave one of them out.'
            )
        if self.downsample != 'patch':
            # The official code pools the scores by 2 and floors; the convolution rounds up.
            raise ValueError(
                f'arch: downsample={self.downsample!r} does not go with keep_ratios, since on odd '
                "sizes its maps are larger than those of the scores; use downsample='patch'."
            )


def _is_nested(value: object) -> bool:
    return isinstance(value, Sequence) and all(
        isinstance(part, Sequence) and not isinstance(part, str) for part in value
    )


_S = Arch(depths=(3, 4, 8, 3), dims=(64, 128, 320, 512), params=21_545_256)
_S_PLUS = replace(
    _S, depths=(3, 5, 9, 3), head_dim=32, stem='conv', downsample='conv', params=24_032_552
)
_B = replace(_S, depths=(5, 8, 20, 7), params=49_776_552)
_S_TL = replace(_S, head_dim=32, token_labels=True, params=22_058_256)
_S_PLUS_TL = replace(_S_PLUS, token_labels=True, params=24_545_552)
_B_TL = replace(_B, head_dim=32, token_labels=True, params=50_289_552)

ARCHS: dict[str, Arch] = {
    'tiny': Arch(depths=(3, 4, 8, 3), dims=(32, 64, 160, 256), head_dim=32, params=5_548_680),
    'xxs': Arch(
        depths=(2, 5, 8, 2),
        dims=(56, 112, 224, 448),
        head_dim=28,
        mlp_ratio=3,
        stem='conv',
        keep_ratios=((1, *(0.5,) * 7), (0.5,) * 2),
        params=10_215_280,
    ),
    'xs': Arch(
        depths=(3, 5, 9, 3),
        dims=(64, 128, 256, 512),
        head_dim=32,
        mlp_ratio=3,
        stem='conv',
        keep_ratios=((1, *(0.5,) * 8), (0.5,) * 3),
        params=16_509_264,
    ),
    'small': _S,
    'small_plus': _S_PLUS,
    'small_plus_dim64': replace(_S_PLUS, head_dim=64),
    'base': _B,
    'base_ls': replace(_B, layer_scale=1e-6, layer_scale_in='attention', params=49_796_520),
    'small_tl': _S_TL,
    'small_tl_dim64': replace(_S_TL, head_dim=64),
    'small_plus_tl': _S_PLUS_TL,
    'small_plus_tl_dim64': replace(_S_PLUS_TL, head_dim=64),
    'base_tl': _B_TL,
    'base_tl_dim64': replace(_B_TL, head_dim=64),
    'large_ls_tl': Arch(
        depths=(5, 10, 24, 7),
        dims=(128, 192, 448, 640),
        layer_scale=1e-6,
        token_labels=True,
        params=100_103_888,
    ),
}


def available_archs() -> list[str]:
    """Names of the table."""
    return list(ARCHS)


def resolve_arch(
    arch: str | Mapping | Arch,
    *,
    head_dim: int | None = None,
    layer_scale: float | bool | None = None,
) -> Arch:
    """The row that ``arch`` names, with the caller's changes applied.

    Args:
        arch: A name of the table, a mapping of :class:`Arch` fields (`depths` and `dims` at
            least), or an :class:`Arch`. Never changed in place.
        head_dim: Replaces the row's head_dim. None keeps it.
        layer_scale: A positive number sets the initial residual scale (in every block, unless
            the row restricts it); False removes the scales. None keeps the row's.

    Returns:
        A frozen row.

    Raises:
        ValueError: Unknown name or field, or values that do not fit together.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f'arch={arch!r} is not known; use one of {available_archs()} or a dict with '
                'depths, dims and head_dim.'
            )
        row = ARCHS[arch]
    elif isinstance(arch, Arch):
        row = arch
    elif isinstance(arch, Mapping):
        known = {f.name for f in fields(Arch)} - {'params'}
        unknown = sorted(set(arch) - known)
        if unknown or not {'depths', 'dims'} <= set(arch):
            raise ValueError(
                f'arch={dict(arch)!r} must give depths and dims and may give '
                f'{sorted(known - {"depths", "dims"})}; not known: {unknown}.'
            )
        row = Arch(**arch)
    else:
        raise ValueError(
            f'arch={arch!r} must be a name, a dict of arch fields or an Arch, not '
            f'{type(arch).__name__}.'
        )
    if head_dim is not None:
        row = replace(row, head_dim=head_dim)
    if layer_scale is not None:
        if layer_scale is not False and not is_positive(layer_scale):
            raise ValueError(
                f'layer_scale={layer_scale!r} must be a positive number (the initial value), '
                'False (no scales) or None (as the arch says).'
            )
        row = replace(row, layer_scale=None if layer_scale is False else layer_scale)
    return row


def arch_name(row: Arch) -> str | None:
    """The name under which ``row`` stands in the table, parameters count aside; None if custom."""
    wanted = asdict(row) | {'params': None}
    for name, candidate in ARCHS.items():
        if asdict(candidate) | {'params': None} == wanted:
            return name
    return None
