# SPDX-License-Identifier: Apache-2.0
"""The UniFormer backbone, one implementation for images and videos.

Shapes: ``B`` batch, ``C`` channels, ``S`` the axes ``H W`` (images) or ``T H W`` (videos).
Source: arXiv 2201.09450 section 3; Sense-X/UniFormer @52a0415, the files named in ``layers.py``
and ``attention.py``.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..checks import check_bool, is_integer, is_number
from ..ops.framework import HALF, cpu_multiplies
from ..registry import MODELS, register
from . import state_dict
from .arch import NUM_STAGES, Arch, resolve_arch
from .blocks import BLOCK_TYPES, DividedBlock, GlobalBlock, LocalBlock, init_block
from .functional import (
    autocast_dtype,
    is_compiling,
    without_autocast,
)
from .fused_norm import runs
from .hourglass import HourglassBlock, pool_scores
from .init_cfg import InitCfgModule
from .layers import (
    BATCH_NORM,
    BLOCK_NORM_EPS,
    EMBED_TYPES,
    ConvEmbed,
    LayerNorm,
    Linear,
    PatchEmbed,
    apply_norm,
    build_downsample,
    build_stem,
    drop_path_rates,
    holds_tensors,
    is_batch_norm,
    is_watched,
)
from .prepared import Weights, prepare

ATTENTIONS = ('global', 'window', 'hybrid', 'divided')
OUT_NORMS = ('auto', 'ln', 'bn', None)
RESIDUAL_DTYPES = ('float32', 'autocast')
MIN_SIDE = 32
# A block of stage 3 attends globally where (index + 1) is a multiple of this, in hybrid mode.
HYBRID_PERIOD = 4
FIRST_ATTENTION_STAGE = 2

# Blocks whose layers can be parts of formulas.
FORMULA_TYPES = (*BLOCK_TYPES, HourglassBlock)

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

# What hourglass blocks hand on beside the map: class token and scores; empty in other archs.
Carried = tuple[()] | tuple[Tensor, Tensor | None]


class UniFormer(InitCfgModule):
    """UniFormer of either rank; use :class:`UniFormer2d` or :class:`UniFormer3d`.

    Stages after the last requested output are not built, and output norms exist only for the
    requested outputs, so every parameter takes part in the loss (DDP needs no search for unused
    ones).

    Args:
        arch: Name of the family table, a dict of its fields or an
            :class:`~uniformer_mm.models.arch.Arch`.
        attention: How stage 3 attends. ``'global'``: all tokens; ``'window'``: square windows of
            zero-padded, unmasked maps; ``'hybrid'``: windows, every fourth block global;
            ``'divided'`` (3-D only, stages 3 and 4): time, then space. Otherwise stage 4 is global.
            Hourglass archs (``xxs``, ``xs``) choose their tokens by score: ``'global'`` only.
        window_size: Side of a window in tokens (stage 3 has stride 16).
        out_indices: Stages to return, 0 to 3; negative values count from the end. Default: all
            in 2-D, the last in 3-D.
        out_norm: ``'ln'``: LayerNorm for each output (``norm1`` to ``norm4``, dense models);
            ``'bn'``: the classifier's BatchNorm ``norm`` after stage 4, which must be the only
            output; None: raw maps; ``'auto'``: ``'bn'`` for a 3-D network that returns stage 4
            alone, else ``'ln'``.
        as_tuple: Return a tuple even for one output. Default: yes in 2-D, no in 3-D, as the
            toolboxes' heads expect.
        head_dim: Replaces the arch's channels per head. It changes no tensor's shape, so weights
            trained with another value load and are wrong.
        layer_scale: Replaces the arch's initial residual scale; False removes the scales.
        drop_path_rate: Stochastic-depth rate of the last block, rising linearly from 0.
        norm_eval: Keep every BatchNorm in evaluation mode (running statistics) while training.
        frozen_stages: Number of leading stages (embedding, blocks, output norm) without gradient
            and in evaluation mode; -1 or 0 for none, 4 for the whole backbone (not for the head of
            a classifier).
        with_cp: Gradient checkpointing: True for all blocks, or the number of leading blocks in
            each stage, e.g. ``(0, 0, 8, 0)``.
        patch_kernel_t: Time kernel of the downsamplings before stages 2 to 4 (3-D only): 1, or 3
            for the official ``std`` variant.
        in_channels: Channels of the input.
        residual_dtype: Dtype of the residual stream under autocast: ``'float32'`` as in the
            official code on a GPU, or ``'autocast'`` for that of the matrix products, which
            halves the bytes that move and makes the error about 1.7 times as large.
        init_cfg: mmengine initialisation, e.g. ``dict(type='UniFormerPretrained',
            checkpoint=...)``. The official random initialisation is always done first.
        **unknown: Refused, with what an option of the official code is called here.

    Raises:
        ValueError: Arguments that are unknown or do not fit together.
    """

    rank: int
    default_out_indices: tuple[int, ...]
    single_output_norm: str
    single_output_as_tuple: bool

    def __init__(
        self,
        arch: str | Mapping | Arch = 'small',
        *,
        attention: str = 'global',
        window_size: int = 14,
        out_indices: int | Sequence[int] | None = None,
        out_norm: str | None = 'auto',
        as_tuple: bool | None = None,
        head_dim: int | None = None,
        layer_scale: float | bool | None = None,
        drop_path_rate: float = 0.0,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool | Sequence[int] = False,
        patch_kernel_t: int = 1,
        in_channels: int = 3,
        residual_dtype: str = 'float32',
        init_cfg: dict | list[dict] | None = None,
        **unknown,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if unknown:
            check_options(unknown, option_names(type(self)))
        self.arch = resolve_arch(arch, head_dim=head_dim, layer_scale=layer_scale)
        self.attention = _check_attention(attention, self.rank, self.arch)
        self.window_size = _check_positive('window_size', window_size)
        self.in_channels = _check_positive('in_channels', in_channels)
        self.out_indices = self._check_out_indices(out_indices)
        self.out_norm = self._check_out_norm(out_norm)
        self.as_tuple = self._check_as_tuple(as_tuple)
        self.norm_eval = check_bool('norm_eval', norm_eval)
        self.cpu_dtypes = {dtype for dtype in HALF if cpu_multiplies(dtype)}
        self.residual_dtype = _check_residual_dtype(residual_dtype)
        self.frozen_stages = _check_frozen_stages(frozen_stages)
        self.cp_blocks = _check_with_cp(with_cp, self.arch.depths)
        if not is_number(drop_path_rate) or not 0 <= drop_path_rate < 1:
            raise ValueError(
                f'drop_path_rate={drop_path_rate!r} must be a number of at least 0 and below 1.'
            )
        kernels_t = (1,) if self.rank == 2 else (1, 3)
        if not is_integer(patch_kernel_t) or patch_kernel_t not in kernels_t:
            raise ValueError(
                f'patch_kernel_t={patch_kernel_t!r} must be 1 or 3, and 1 in a 2-D network.'
            )

        rates = drop_path_rates(self.arch.depths, drop_path_rate)
        self.num_stages = max(self.out_indices) + 1
        widths = (in_channels, *self.arch.dims)
        for stage in range(self.num_stages):
            if stage == 0:
                embed = build_stem(self.rank, self.arch.stem, *widths[:2])
            else:
                embed = build_downsample(
                    self.rank, self.arch.downsample, *widths[stage : stage + 2], patch_kernel_t
                )
            self.add_module(f'patch_embed{stage + 1}', embed)
            blocks = nn.ModuleList(
                self._build_block(stage, index, rate) for index, rate in enumerate(rates[stage])
            )
            self.add_module(f'blocks{stage + 1}', blocks)
        if self.arch.keep_ratios is not None and self.num_stages > FIRST_ATTENTION_STAGE:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.arch.dims[FIRST_ATTENTION_STAGE]))
            if self.num_stages == NUM_STAGES:
                self.cls_upsample = Linear(*self.arch.dims[FIRST_ATTENTION_STAGE:])
        if self.out_norm == 'ln':
            for stage in self.out_indices:
                norm = LayerNorm(self.arch.dims[stage], eps=BLOCK_NORM_EPS)
                self.add_module(f'norm{stage + 1}', norm)
        elif self.out_norm == 'bn':
            self.norm = BATCH_NORM[self.rank](self.arch.dims[-1])
        self.apply(init_block)
        self._freeze()
        state_dict.install(self)

    def _check_out_indices(self, out_indices: int | Sequence[int] | None) -> tuple[int, ...]:
        if out_indices is None:
            return self.default_out_indices
        given = tuple(out_indices) if isinstance(out_indices, Iterable) else (out_indices,)
        valid = all(is_integer(i) and -NUM_STAGES <= i < NUM_STAGES for i in given)
        wrapped = tuple(i % NUM_STAGES for i in given) if valid else ()
        if not wrapped or list(wrapped) != sorted(set(wrapped)):
            raise ValueError(
                f'out_indices={out_indices!r} must be different stages in rising order, each 0 to '
                f'{NUM_STAGES - 1} (or -{NUM_STAGES} to -1 from the end).'
            )
        return wrapped

    def _check_out_norm(self, out_norm: str | None) -> str | None:
        if out_norm not in OUT_NORMS:
            raise ValueError(f'out_norm={out_norm!r} is not known; use one of {OUT_NORMS}.')
        last_only = self.out_indices == (NUM_STAGES - 1,)
        if out_norm == 'auto':
            return self.single_output_norm if last_only else 'ln'
        if out_norm == 'bn' and not last_only:
            raise ValueError(
                f"out_norm='bn' is the classifier's norm after stage 4, but out_indices="
                f"{self.out_indices}; use out_indices=(3,) or out_norm='ln'."
            )
        return out_norm

    def _check_as_tuple(self, as_tuple: bool | None) -> bool:
        single = len(self.out_indices) == 1
        if as_tuple is None:
            return self.single_output_as_tuple or not single
        check_bool('as_tuple', as_tuple)
        if not as_tuple and not single:
            raise ValueError(
                f'as_tuple=False returns one bare map, but out_indices={self.out_indices} asks for '
                f'{len(self.out_indices)}; leave it out or ask for one stage.'
            )
        return as_tuple

    def _build_block(self, stage: int, index: int, drop_path: float) -> nn.Module:
        arch = self.arch
        if stage < FIRST_ATTENTION_STAGE:
            scale = arch.layer_scale if arch.layer_scale_in == 'all' else None
            return LocalBlock(self.rank, arch.dims[stage], arch.mlp_ratio, drop_path, scale)
        args = (self.rank, arch.dims[stage], arch.head_dim, arch.mlp_ratio, drop_path)
        if arch.keep_ratios is not None:
            keep_ratio = arch.keep_ratios[stage - FIRST_ATTENTION_STAGE][index]
            is_last = stage == NUM_STAGES - 1 and index == arch.depths[stage] - 1
            return HourglassBlock(
                *args, arch.layer_scale, keep_ratio=keep_ratio, scores_tokens=not is_last
            )
        if self.attention == 'divided':
            return DividedBlock(*args, arch.layer_scale)
        windowed = stage == FIRST_ATTENTION_STAGE and (
            self.attention == 'window'
            or (self.attention == 'hybrid' and (index + 1) % HYBRID_PERIOD != 0)
        )
        return GlobalBlock(*args, arch.layer_scale, self.window_size if windowed else None)

    def stage_modules(self, stage: int) -> list[nn.Module]:
        """The embedding (of the class token too), the blocks and the output norm of ``stage``."""
        names = [f'patch_embed{stage + 1}', f'blocks{stage + 1}', f'norm{stage + 1}']
        if stage == NUM_STAGES - 1:
            names += ['cls_upsample', 'norm']
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def get_layer_depth(self, name: str, prefix: str = '') -> tuple[int, int]:
        """Where a parameter lies between input and output, for layer-wise learning rates.

        As mmpretrain's backbones define it: 0 is the stem, then one depth for each block; a
        downsampling counts with the block before it, and the class token with the downsampling of
        its stage. Output norms, which no checkpoint holds, and what follows the backbone (necks,
        heads) have the last depth.

        Args:
            name: The parameter's name in the whole model.
            prefix: What stands before the backbone's own names there, e.g. ``'backbone.'``.

        Returns:
            The depth, from 0, and the number of depths: the blocks and two.
        """
        depths = self.arch.depths[: self.num_stages]
        num_depths = sum(depths) + 2
        module, *below = name.removeprefix(prefix).split('.')
        module = {'cls_token': 'patch_embed3', 'cls_upsample': 'patch_embed4'}.get(module, module)
        kind, stage = module[:-1], module[-1:]
        if not name.startswith(prefix) or kind not in ('patch_embed', 'blocks'):
            return num_depths - 1, num_depths
        before = sum(depths[: int(stage) - 1])
        return before + (int(below[0]) + 1 if kind == 'blocks' else 0), num_depths

    def _freeze(self) -> None:
        for stage in range(min(self.frozen_stages, self.num_stages)):
            for module in self.stage_modules(stage):
                module.eval()
                module.requires_grad_(False)
            if stage == FIRST_ATTENTION_STAGE and hasattr(self, 'cls_token'):
                self.cls_token.requires_grad_(False)

    def train(self, mode: bool = True) -> UniFormer:
        """Set the mode; frozen stages, and BatchNorm under ``norm_eval``, stay in evaluation."""
        super().train(mode)
        if mode:
            self._freeze()
            if self.norm_eval:
                for module in self.modules():
                    if is_batch_norm(module):
                        module.eval()
        return self

    def check_input(self, x: Tensor) -> None:
        """Refuse inputs that the network cannot take.

        DIFFERS: the official ImageNet classifier with a patch stem takes 224 pixels only.

        Raises:
            ValueError: No tensor, a wrong number of axes or channels, a side below 32 pixels, no
                sample or frame, or a dtype that does not go with the weights.
        """
        layout = 'B C H W' if self.rank == 2 else 'B C T H W'
        if not isinstance(x, Tensor):
            raise ValueError(
                f'input must be a torch.Tensor ({layout}), not {type(x).__name__}; use '
                'torch.from_numpy for an array of NumPy and torch.stack for a list of samples.'
            )
        if x.ndim != self.rank + 2:
            raise ValueError(
                f'input of shape {tuple(x.shape)} has {x.ndim} axes, but {type(self).__name__} '
                f'takes {self.rank + 2} ({layout}); {self._right_axes(x)}.'
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f'input of shape {tuple(x.shape)} has {x.shape[1]} channels, but the network was '
                f'built for in_channels={self.in_channels} ({layout}).'
            )
        if min(x.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f'input of shape {tuple(x.shape)} is too small: height and width must be at least '
                f'{MIN_SIDE} pixels; resize or pad it.'
            )
        if x.shape[0] == 0 or x.shape[2] == 0:
            raise ValueError(
                f'input of shape {tuple(x.shape)} is empty; give at least one sample'
                + ('.' if self.rank == 2 else ' of at least one frame.')
            )
        if not is_compiling():
            self._check_dtype(x)

    def _right_axes(self, x: Tensor) -> str:
        """What to do about an input with a wrong number of axes, in words."""
        if self.rank == 2 and x.ndim == 5:
            return 'use the 3-D network for clips'
        if x.ndim != self.rank + 1:
            return 'give it these axes'
        if self.rank == 2 or x.shape[1] != self.in_channels:
            return 'add the batch axis: x[None]'
        one_clip = ', or the batch axis: x[None]' if x.shape[0] == self.in_channels else ''
        return f'add a time axis (one clip of T frames per sample){one_clip}'

    def _check_dtype(self, x: Tensor) -> None:
        stem = self.patch_embed1
        if type(stem) not in (PatchEmbed, ConvEmbed):
            return
        conv = stem.proj[0] if type(stem.proj) is nn.Sequential else stem.proj
        if type(conv) not in EMBED_TYPES or conv.weight.dtype is x.dtype:
            return
        # Whoever put a hook, a layer or a weight of their own there may cast.
        if any(map(is_watched, (stem, stem.proj, conv))) or not holds_tensors(conv):
            return
        if not x.is_floating_point():
            raise ValueError(
                f'input has dtype {x.dtype}; convert it to float and normalise it as in training.'
            )
        dtypes = (x.dtype, conv.weight.dtype)
        with self.precision(x):
            # The formulas of a GPU cast as autocast does.
            casts = autocast_dtype(x) is not None or (type(stem) is PatchEmbed and runs(x))
        if torch.float64 in dtypes or not casts:
            raise ValueError(
                f'input has dtype {x.dtype}, but the weights have {conv.weight.dtype}; convert one '
                'of them, or run under autocast, which takes all but float64.'
            )

    def precision(self, x: Tensor) -> AbstractContextManager:
        """A context that turns autocast off on a processor without instructions for its dtype.

        DIFFERS: there the framework emulates them, five times slower than float32 and less exact.
        """
        dtype = autocast_dtype(x)
        emulated = x.device.type == 'cpu' and dtype in HALF and dtype not in self.cpu_dtypes
        return without_autocast(x) if emulated else nullcontext()

    def embed(self, stage: int, x_BSC: Tensor) -> Tensor:
        """The embedding of ``stage`` (0 to 3), whose dtype the residual stream of the stage has.

        Shape: ``x_BSC -> y_BSC``, the input or the previous stage's map to the reduced size.
        """
        stream = autocast_dtype(x_BSC)
        if stream is not None and self.residual_dtype == 'float32':
            stream = torch.float32
        return getattr(self, f'patch_embed{stage + 1}')(x_BSC, stream)

    def run_blocks(
        self, stage: int, x_BSC: Tensor, carried: Carried = ()
    ) -> tuple[Tensor, Carried]:
        """The blocks of ``stage`` (0 to 3).

        Args:
            stage: Which.
            x_BSC: The embedded map.
            carried: What the stage before it returned beside its map.

        Returns:
            The map ``y_BSC``, and what the next stage takes beside it.
        """
        blocks = getattr(self, f'blocks{stage + 1}')
        carried = self.carry(stage, x_BSC, carried)
        weights = prepare(blocks, x_BSC) if all(map(_takes_weights, blocks)) else None
        arguments = () if weights is None else (weights,)
        for index, block in enumerate(blocks):
            call = block
            if index < self.cp_blocks[stage] and self.training:
                call = functools.partial(_checkpointed, block)
            if carried:
                x_BSC, *carried = call(x_BSC, *carried, *arguments)
            else:
                x_BSC = call(x_BSC, *arguments)
        return x_BSC, tuple(carried)

    def carry(self, stage: int, x_BSC: Tensor, carried: Carried) -> Carried:
        """Class token and scores at the entrance of ``stage``, where its blocks take them.

        Args:
            stage: Which.
            x_BSC: The embedded map, whose dtype the token has.
            carried: See :meth:`run_blocks`.
        """
        if self.arch.keep_ratios is None or stage < FIRST_ATTENTION_STAGE:
            return ()
        if stage == FIRST_ATTENTION_STAGE:
            # A copy: without gradients a view of a parameter still asks for them, and what follows
            # modules (FlopCounterMode) then fails.
            return self.cls_token.to(x_BSC.dtype).repeat(x_BSC.shape[0], 1, 1), None
        cls_B1C, scores_BS = carried
        return self.cls_upsample(cls_B1C).to(x_BSC.dtype), pool_scores(scores_BS)

    def iter_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Run the trunk and yield each stage's raw map.

        Args:
            x: ``x_BCS`` in the network's layout.

        Yields:
            The un-normed maps ``x_BCS`` of stages 1 up to the last requested one, strides 4, 8,
            16, 32: views of channels-last memory.
        """
        self.check_input(x)
        x_BSC, carried = x.movedim(1, -1), ()
        for stage in range(self.num_stages):
            # Not around the loop: whoever takes the maps has a precision of their own.
            with self.precision(x):
                x_BSC, carried = self.run_blocks(stage, self.embed(stage, x_BSC), carried)
            yield x_BSC.movedim(-1, 1)

    def apply_out_norm(self, stage: int, x_BSC: Tensor) -> Tensor:
        """One stage's raw map after its output norm, if there is one; float32 under autocast.

        As the official norms return it; mmcv's RoIAlign has no bfloat16 kernel.
        """
        if self.out_norm is None:
            return x_BSC
        name = 'norm' if self.out_norm == 'bn' else f'norm{stage + 1}'
        if autocast_dtype(x_BSC) is not None:
            x_BSC = x_BSC.float()
        return apply_norm(getattr(self, name), x_BSC, self.out_norm == 'bn')

    def normed(self, stage: int, x_BSC: Tensor) -> Tensor:
        """The output form of one stage's raw map: ``y_BCS``, contiguous.

        mmcv's RoIAlign reads a map's memory as if it were contiguous, whatever its strides, so a
        channels-last map (which convolutions after it would keep) turns into noise there.
        """
        return self.apply_out_norm(stage, x_BSC).movedim(-1, 1).contiguous()

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Compute the requested maps.

        Args:
            x: Images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``, at least 32 pixels a side.

        Returns:
            Maps of the requested stages at spatial strides 4, 8, 16, 32 (sizes are floored; time
            is halved once), as a tuple or bare as ``as_tuple`` says.

        Raises:
            ValueError: See :meth:`check_input`.
        """
        self.check_input(x)
        x_BSC, carried, outputs = x.movedim(1, -1), (), []
        with self.precision(x):
            for stage in range(self.num_stages):
                x_BSC, carried = self.run_blocks(stage, self.embed(stage, x_BSC), carried)
                if stage in self.out_indices:
                    outputs.append(self.normed(stage, x_BSC))
        return tuple(outputs) if self.as_tuple else outputs[0]


@register(MODELS)
class UniFormer2d(UniFormer):
    """UniFormer for images; returns a tuple of ``(B, C, H, W)`` maps. See :class:`UniFormer`."""

    rank = 2
    default_out_indices = (0, 1, 2, 3)
    single_output_norm = 'ln'
    single_output_as_tuple = True


@register(MODELS)
class UniFormer3d(UniFormer):
    """UniFormer for clips; returns a bare ``(B, C, T, H, W)`` map by default.

    So mmaction2's heads expect it. See :class:`UniFormer`.
    """

    rank = 3
    default_out_indices = (3,)
    single_output_norm = 'bn'
    single_output_as_tuple = False


def option_names(cls: type[UniFormer]) -> list[str]:
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


def _takes_weights(block: nn.Module) -> bool:
    """Whether a block's weights may be made ready outside of it.

    Not those of wrapped ones (FSDP's are not there before the call), of one that somebody gave a
    ``forward`` of its own (another precision), or that is compiled by itself.
    """
    is_own = type(block) in FORMULA_TYPES and 'forward' not in vars(block)
    return is_own and getattr(block, '_compiled_call_impl', None) is None


def _checkpointed(block: nn.Module, *arguments: Tensor | Weights) -> Tensor:
    """``block(...)`` that keeps only its input for the backward pass.

    torch.compile recomputes from its graph, which moves no statistics, and traces no context.
    """
    if is_compiling():
        return checkpoint(block, *arguments, use_reentrant=False)
    context = functools.partial(_recompute, block)
    return checkpoint(block, *arguments, use_reentrant=False, context_fn=context)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keep running BatchNorm statistics as they are while batch statistics are in use.

    Momentum 0 writes the old values back; leaving the buffers out altogether would save other
    tensors than the first forward did, which checkpointing refuses.
    """
    norms = [m for m in block.modules() if is_batch_norm(m) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        # Not None, which SyncBatchNorm refuses.
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _recompute(block: nn.Module) -> tuple:
    """Contexts of a checkpointed block's forward and of its recomputation.

    DIFFERS: officially the recomputation moves the running BatchNorm statistics a second time.
    """
    return nullcontext(), _frozen_statistics(block)


def _check_attention(attention: str, rank: int, arch: Arch) -> str:
    if attention not in ATTENTIONS:
        raise ValueError(f'attention={attention!r} is not known; use one of {ATTENTIONS}.')
    if arch.keep_ratios is not None and attention != 'global':
        raise ValueError(
            f'attention={attention!r} does not go with an hourglass arch, whose blocks choose '
            "their tokens by score; use attention='global', or an arch without keep_ratios."
        )
    if attention == 'divided' and rank == 2:
        raise ValueError(
            "attention='divided' attends over time and so needs the 3-D network; use UniFormer3d, "
            "or 'global', 'window' or 'hybrid' in 2-D."
        )
    return attention


def _check_positive(name: str, value: int) -> int:
    if not is_integer(value) or value < 1:
        raise ValueError(f'{name}={value!r} must be a positive integer.')
    return value


def _check_frozen_stages(frozen_stages: int) -> int:
    if not is_integer(frozen_stages) or not -1 <= frozen_stages <= NUM_STAGES:
        raise ValueError(
            f'frozen_stages={frozen_stages!r} must be the number of leading stages to freeze, 0 '
            f'(or -1) to {NUM_STAGES}.'
        )
    return frozen_stages


def _check_residual_dtype(residual_dtype: str) -> str:
    if residual_dtype not in RESIDUAL_DTYPES:
        raise ValueError(
            f'residual_dtype={residual_dtype!r} is not known; use one of {RESIDUAL_DTYPES}.'
        )
    return residual_dtype


def _check_with_cp(with_cp: bool | Sequence[int], depths: tuple[int, ...]) -> tuple[int, ...]:
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
