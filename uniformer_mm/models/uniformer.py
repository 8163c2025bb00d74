# SPDX-License-Identifier: Apache-2.0
"""The UniFormer backbone, one implementation for images and clips.

Shapes: ``B`` batch, ``C`` channels, ``S`` the axes ``H W`` (images) or ``T H W`` (clips).
Source: arXiv 2201.09450 section 3; Sense-X/UniFormer @52a0415, the files named in ``blocks.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..layers import (
    BATCH_NORM,
    BLOCK_NORM_EPS,
    build_downsample,
    build_stem,
    drop_path_rates,
    is_batch_norm,
    to_map,
    to_tokens,
)
from ..ops.autocast import HALF, autocast_dtype, native_autocast
from ..ops.cpu import cpu_multiplies
from ..registry import MODELS, register
from . import options, state_dict
from .arch import NUM_STAGES, Arch, resolve_arch
from .blocks import DividedBlock, GlobalBlock, LocalBlock, init_block
from .checkpointing import checkpointed
from .hourglass import HourglassBlock, pool_scores
from .init_cfg import InitCfgModule
from .inputs import check_input, wrong_dtype

# A block of stage 3 attends globally where (index + 1) is a multiple of this, in hybrid mode.
HYBRID_PERIOD = 4
FIRST_ATTENTION_STAGE = 2

# What hourglass blocks hand on beside the map: class token and scores; empty in other archs.
Carried = tuple[()] | tuple[Tensor, Tensor | None]


class UniFormer(InitCfgModule):
    """UniFormer for images or clips; use :class:`UniFormer2d` or :class:`UniFormer3d`.

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

    ndim: int
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
            options.check_options(unknown, options.option_names(type(self)))
        self.arch = resolve_arch(arch, head_dim=head_dim, layer_scale=layer_scale)
        self.attention = options.check_attention(attention, self.ndim, self.arch)
        self.window_size = options.check_positive('window_size', window_size)
        self.in_channels = options.check_positive('in_channels', in_channels)
        self.out_indices = options.check_out_indices(out_indices, self.default_out_indices)
        self.out_norm = options.check_out_norm(out_norm, self.out_indices, self.single_output_norm)
        default = self.single_output_as_tuple
        self.as_tuple = options.check_as_tuple(as_tuple, self.out_indices, default)
        self.norm_eval = options.check_bool('norm_eval', norm_eval)
        self.residual_dtype = options.check_residual_dtype(residual_dtype)
        self.frozen_stages = options.check_frozen_stages(frozen_stages)
        self.cp_blocks = options.check_with_cp(with_cp, self.arch.depths)
        options.check_patch_kernel_t(patch_kernel_t, self.ndim)
        rates = drop_path_rates(self.arch.depths, options.check_drop_path_rate(drop_path_rate))
        # Dtypes in which this CPU multiplies matrices itself.
        self.cpu_dtypes = {dtype for dtype in HALF if cpu_multiplies(dtype)}

        self.num_stages = max(self.out_indices) + 1
        widths = (in_channels, *self.arch.dims)
        for stage in range(self.num_stages):
            if stage == 0:
                embed = build_stem(self.ndim, self.arch.stem, *widths[:2])
            else:
                embed = build_downsample(
                    self.ndim, self.arch.downsample, *widths[stage : stage + 2], patch_kernel_t
                )
            self.add_module(f'patch_embed{stage + 1}', embed)
            blocks = nn.ModuleList(
                self._build_block(stage, index, rate) for index, rate in enumerate(rates[stage])
            )
            self.add_module(f'blocks{stage + 1}', blocks)
        if self.arch.keep_ratios is not None and self.num_stages > FIRST_ATTENTION_STAGE:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.arch.dims[FIRST_ATTENTION_STAGE]))
            if self.num_stages == NUM_STAGES:
                self.cls_upsample = nn.Linear(*self.arch.dims[FIRST_ATTENTION_STAGE:])
        if self.out_norm == 'ln':
            for stage in self.out_indices:
                norm = nn.LayerNorm(self.arch.dims[stage], eps=BLOCK_NORM_EPS)
                self.add_module(f'norm{stage + 1}', norm)
        elif self.out_norm == 'bn':
            self.norm = BATCH_NORM[self.ndim](self.arch.dims[-1])
        self.apply(init_block)
        self._freeze()
        state_dict.install(self)

    def _build_block(self, stage: int, index: int, drop_path: float) -> nn.Module:
        arch = self.arch
        if stage < FIRST_ATTENTION_STAGE:
            scale = arch.layer_scale if arch.layer_scale_in == 'all' else None
            return LocalBlock(self.ndim, arch.dims[stage], arch.mlp_ratio, drop_path, scale)
        args = (self.ndim, arch.dims[stage], arch.head_dim, arch.mlp_ratio, drop_path)
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
        """See :func:`~uniformer_mm.models.inputs.check_input`."""
        check_input(x, self.ndim, self.in_channels)

    def embed(self, stage: int, x: Tensor) -> Tensor:
        """The embedding of ``stage`` (0 to 3), in the dtype of the residual stream.

        Shape: ``(B, C, *S) -> (B, D, *s)``, the input or the previous stage's map to the reduced
        size.

        Raises:
            ValueError: The dtype of the input does not go with that of the weights.
        """
        dtype = autocast_dtype(x)
        try:
            x = getattr(self, f'patch_embed{stage + 1}')(x)
        except RuntimeError as error:
            # Whoever wraps the stem may convert there, so it has the first word.
            weights = next(self.patch_embed1.parameters(), x)
            if x.dtype is weights.dtype or dtype not in (None, x.dtype):
                raise
            raise ValueError(wrong_dtype(x, weights)) from error
        if dtype is None:
            return x
        return x.to(torch.float32 if self.residual_dtype == 'float32' else dtype)

    def run_blocks(self, stage: int, x: Tensor, carried: Carried = ()) -> tuple[Tensor, Carried]:
        """The blocks of ``stage`` (0 to 3).

        Args:
            stage: Which.
            x: The embedded map.
            carried: What the stage before it returned beside its map.

        Returns:
            The map, and what the next stage takes beside it.
        """
        carried = self.carry(stage, x, carried)
        for index, block in enumerate(getattr(self, f'blocks{stage + 1}')):
            if index < self.cp_blocks[stage] and self.training:
                result = checkpointed(block, x, *carried)
            else:
                result = block(x, *carried)
            x, *carried = result if carried else (result,)
        return x, tuple(carried)

    def carry(self, stage: int, x: Tensor, carried: Carried) -> Carried:
        """Class token and scores at the entrance of ``stage``, where its blocks take them.

        Args:
            stage: Which.
            x: The embedded map, whose dtype the token has.
            carried: See :meth:`run_blocks`.
        """
        if self.arch.keep_ratios is None or stage < FIRST_ATTENTION_STAGE:
            return ()
        if stage == FIRST_ATTENTION_STAGE:
            # A copy: without gradients a view of a parameter still asks for them, and what follows
            # modules (FlopCounterMode) then fails.
            return self.cls_token.to(x.dtype).repeat(x.shape[0], 1, 1), None
        cls_token, scores = carried
        return self.cls_upsample(cls_token).to(x.dtype), pool_scores(scores)

    def run_stages(
        self, x: Tensor, after_stem: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[list[Tensor], Carried]:
        """The network without its output norms.

        Args:
            x: Images or clips.
            after_stem: Applied to the first embedding, as token labelling mixes there.

        Returns:
            The maps of the requested stages, and the last class token and scores if there are any.
        """
        maps, carried = [], ()
        for stage in range(self.num_stages):
            x = self.embed(stage, x)
            if stage == 0 and after_stem is not None:
                x = after_stem(x)
            x, carried = self.run_blocks(stage, x, carried)
            if stage in self.out_indices:
                maps.append(x)
        return maps, carried

    def iter_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Run the network and yield each stage's map before its output norm.

        Yields:
            ``(B, C, *S)`` of stages 1 up to the last requested one, strides 4, 8, 16, 32.
        """
        self.check_input(x)
        carried = ()
        for stage in range(self.num_stages):
            # Not around the loop: whoever takes the maps has a precision of their own.
            with native_autocast(x, self.cpu_dtypes):
                x, carried = self.run_blocks(stage, self.embed(stage, x), carried)
            yield x

    def normalise(self, stage: int, x: Tensor) -> Tensor:
        """One stage's map after its output norm, if there is one; float32 under autocast.

        As the official norms return it; mmcv's RoIAlign has no bfloat16 kernel.
        """
        if self.out_norm is None:
            return x
        if autocast_dtype(x) is not None:
            x = x.float()
        if self.out_norm == 'bn':
            return self.norm(x)
        tokens = getattr(self, f'norm{stage + 1}')(to_tokens(x, self.ndim))
        return to_map(tokens, x.shape, self.ndim)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        """Compute the requested maps.

        Args:
            x: Images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``, at least 32 pixels a side.

        Returns:
            Maps of the requested stages at spatial strides 4, 8, 16, 32 (sizes are floored; time
            is halved once), as a tuple or bare as ``as_tuple`` says. They are contiguous: mmcv's
            RoIAlign reads memory as if it were, whatever the strides.

        Raises:
            ValueError: See :meth:`check_input` and :meth:`embed`.
        """
        self.check_input(x)
        with native_autocast(x, self.cpu_dtypes):
            maps, _ = self.run_stages(x)
            outputs = [
                self.normalise(stage, y).contiguous()
                for stage, y in zip(self.out_indices, maps, strict=True)
            ]
        return tuple(outputs) if self.as_tuple else outputs[0]


@register(MODELS)
class UniFormer2d(UniFormer):
    """UniFormer for images; returns a tuple of ``(B, C, H, W)`` maps. See :class:`UniFormer`."""

    ndim = 2
    default_out_indices = (0, 1, 2, 3)
    single_output_norm = 'ln'
    single_output_as_tuple = True


@register(MODELS)
class UniFormer3d(UniFormer):
    """UniFormer for clips; returns a bare ``(B, C, T, H, W)`` map by default.

    So mmaction2's heads expect it. See :class:`UniFormer`.
    """

    ndim = 3
    default_out_indices = (3,)
    single_output_norm = 'bn'
    single_output_as_tuple = False
