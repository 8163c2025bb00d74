# SPDX-License-Identifier: Apache-2.0
"""What a state dict's keys and shapes say about the network, and what two of them differ in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..models.arch import ARCHS, NUM_STAGES, Arch

_BLOCK = re.compile(r'blocks(\d)\.(\d+)\.')
# What marks hourglass networks, and how many stages have no such mark.
_LIGHT_KEYS = ('cls_token', 'cls_upsample.weight', 'norm_cls.weight')
_UNMARKED_STAGES = 2


@dataclass(frozen=True)
class Structure:
    """The structure of one UniFormer, read from official keys. head_dim leaves no trace in it.

    Attributes:
        rank: 2 (images) or 3 (clips).
        in_channels: Channels of the input.
        stem: ``'patch'`` or ``'conv'``.
        downsample: The same for stages 2 to 4; None where only one stage is built.
        depths: Blocks of each stage that is there.
        dims: Channels of each stage that is there.
        mlp_ratio: Hidden width of the MLPs in multiples of the stage width.
        layer_scale: ``'attention'``, ``'all'`` or None: the blocks that have residual scales.
        divided: Whether attention has a temporal branch of its own.
        kernel_t: Time kernel of the downsamplings; None in 2-D.
        light: Whether it is an hourglass network (class token).
        final_norm: Whether the classifier's BatchNorm is there.
        output_norms: Stages, 1 to 4, that have an output LayerNorm.
        classes: Width of the classifier; None if there is none.
        token_labels: Whether the dense head of token labelling is there.
    """

    ndim: int
    in_channels: int
    stem: str
    downsample: str | None
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    mlp_ratio: float
    layer_scale: str | None
    divided: bool
    kernel_t: int | None
    light: bool
    final_norm: bool
    output_norms: tuple[int, ...]
    classes: int | None
    token_labels: bool

    def archs(self) -> list[str]:
        """Names of the family table with this structure, most likely first."""
        names = [name for name, arch in ARCHS.items() if self._fits(arch)]
        if self.classes is not None or self.token_labels:
            names = [n for n in names if ARCHS[n].token_labels == self.token_labels] or names
        return names

    def _fits(self, arch: Arch) -> bool:
        stages = len(self.depths)
        scale = None if arch.layer_scale is None else arch.layer_scale_in
        return (
            arch.depths[:stages] == self.depths
            and arch.dims[:stages] == self.dims
            and arch.mlp_ratio == self.mlp_ratio
            and arch.stem == self.stem
            and self.downsample in (arch.downsample, None)
            # Light networks for clips exist with scales and without, under one name.
            and (scale == self.layer_scale or self.light)
            and (arch.keep_ratios is not None) == self.light
        )

    def words(self) -> str:
        """The structure in a few words."""
        names = self.archs()
        arch = ' or '.join(names) or f'custom (depths {self.depths}, dims {self.dims})'
        return f'{arch}, {self.ndim}-D, {self.task()}'

    def task(self) -> str:
        """What the ends of the network are made for, in words."""
        if self.classes is not None:
            return f'classifier of {self.classes} classes'
        if self.output_norms:
            return 'dense backbone (output norms ' + ', '.join(map(str, self.output_norms)) + ')'
        return 'trunk with the final BatchNorm' if self.final_norm else 'bare trunk'


def structure_of(state: Mapping[str, Tensor]) -> Structure:
    """Read the structure from official keys.

    Args:
        state: Tensors (of any device, also meta) by official names; the stem must be there.

    Returns:
        The structure. Missing pieces read as absent.
    """
    blocks: dict[int, int] = {}
    for key in state:
        if match := _BLOCK.match(key):
            stage, index = int(match[1]), int(match[2])
            blocks[stage] = max(blocks.get(stage, 0), index + 1)
    stages = [s for s in range(1, NUM_STAGES + 1) if s in blocks]
    dims = tuple(_dim(state, s) for s in stages)
    conv_stem = 'patch_embed1.proj.0.weight' in state
    stem = state['patch_embed1.proj.0.weight' if conv_stem else 'patch_embed1.proj.weight']
    downsample = next(
        (
            (kind, state[key])
            for kind, key in (
                ('patch', 'patch_embed2.proj.weight'),
                ('conv', 'patch_embed2.proj.0.weight'),
            )
            if key in state
        ),
        None,
    )
    head = state.get('head.weight')
    hidden = state.get('blocks1.0.mlp.fc1.weight')
    return Structure(
        ndim=stem.ndim - 2,
        in_channels=stem.shape[1],
        stem='conv' if conv_stem else 'patch',
        downsample=downsample[0] if downsample else None,
        depths=tuple(blocks[s] for s in stages),
        dims=dims,
        mlp_ratio=hidden.shape[0] / dims[0] if hidden is not None and dims else 0,
        layer_scale=_layer_scale(state),
        divided=any('.t_attn.' in key for key in state),
        kernel_t=downsample[1].shape[2] if downsample and stem.ndim == 5 else None,
        light=any(key in state for key in _LIGHT_KEYS),
        final_norm='norm.weight' in state,
        output_norms=tuple(s for s in range(1, NUM_STAGES + 1) if f'norm{s}.weight' in state),
        classes=None if head is None else head.shape[0],
        token_labels='aux_head.weight' in state,
    )


def _dim(state: Mapping[str, Tensor], stage: int) -> int:
    embed = state.get(f'blocks{stage}.0.pos_embed.weight')
    return 0 if embed is None else embed.shape[0]


def _layer_scale(state: Mapping[str, Tensor]) -> str | None:
    scaled = {key[len('blocks')] for key in state if key.endswith('.gamma_1')}
    if not scaled:
        return None
    return 'all' if scaled & {'1', '2'} else 'attention'


def first_difference(file: Structure, model: Structure, target: str) -> str | None:
    """The most telling structural difference that makes a file unfit for a model, in words.

    Args:
        file: What the file holds.
        model: What the model is.
        target: Name of the model's arch.

    Returns:
        A sentence part that says what the file is, what the model is and what to do; None if
        the structures agree as far as both are there.
    """
    archs = ' or '.join(file.archs()) or 'a custom arch'
    use = f"build the model with arch='{file.archs()[0]}'" if file.archs() else 'build that network'
    stages = min(len(file.depths), len(model.depths))
    if file.ndim > model.ndim:
        return (
            '3-D weights into a 2-D model: weights of clips have a time axis that images lack; '
            'use UniFormer3d, or a 2-D checkpoint'
        )
    if stages > _UNMARKED_STAGES and file.light != model.light:
        return (
            f'this is a lightweight (hourglass) checkpoint ({archs}); the model is {target}'
            if file.light
            else f'the model is lightweight ({target}); this checkpoint ({archs}) has no class '
            'token'
        )
    if file.stem != model.stem:
        return f'this is a {file.stem}-stem checkpoint ({archs}); the model is {target}; {use}'
    if file.dims[:stages] != model.dims[:stages] or file.depths[:stages] != model.depths[:stages]:
        return (
            f'this checkpoint is {archs} (depths {file.depths}, dims {file.dims}); the model is '
            f'{target} (depths {model.depths}, dims {model.dims}); {use}'
        )
    if len(file.depths) < len(model.depths):
        return f'this checkpoint holds {len(file.depths)} stages; the model has {len(model.depths)}'
    if file.downsample != model.downsample and model.downsample is not None:
        return f'this checkpoint has {file.downsample} downsampling, the model {model.downsample}'
    if file.mlp_ratio != model.mlp_ratio:
        return f'this checkpoint has mlp_ratio {file.mlp_ratio:g}, the model {model.mlp_ratio:g}'
    if file.in_channels != model.in_channels:
        return (
            f'this checkpoint takes {file.in_channels} input channels, the model '
            f'{model.in_channels}; build it with in_channels={file.in_channels}'
        )
    if file.layer_scale != model.layer_scale and not scales_are_new(file, model):
        return _layer_scale_difference(file, model, archs, target, use)
    if file.divided and not model.divided:
        return "divided attention (t_attn keys): build the model with attention='divided'"
    if model.kernel_t and file.kernel_t and file.kernel_t > model.kernel_t:
        return (
            f'this checkpoint has a time kernel of {file.kernel_t} in its downsamplings, the model '
            f'{model.kernel_t}; build it with patch_kernel_t={file.kernel_t}'
        )
    if model.final_norm and not file.final_norm:
        return (
            f'this is the checkpoint of a {file.task()}, which lacks the final BatchNorm that a '
            'classifier needs; use an ImageNet or Kinetics checkpoint, or features_only=True'
        )
    return None


def scales_are_new(file: Structure, model: Structure) -> bool:
    """Whether a model's residual scales may be missing in a file.

    Official lightweight models for clips add them (initially 0.1) to image weights that have none.
    """
    inflates = file.ndim < model.ndim
    return model.light and inflates and file.layer_scale is None and model.layer_scale is not None


def _layer_scale_difference(
    file: Structure, model: Structure, archs: str, target: str, use: str
) -> str:
    where = {'attention': 'stages 3 and 4', 'all': 'all blocks', None: 'no block'}
    if model.layer_scale is None and file.light:
        return (
            f'layer-scale keys (gamma_1, gamma_2): this is {archs} with residual scales; build the '
            'model with layer_scale=0.1'
        )
    if model.layer_scale is None:
        return f'layer-scale keys (gamma_1, gamma_2): use {archs}; the model is {target}; {use}'
    if file.layer_scale is None:
        return (
            f'the model ({target}) scales its residuals and this checkpoint ({archs}) does not, so '
            f'its blocks would be switched off; {use} or with layer_scale=False'
        )
    return (
        f'this checkpoint scales residuals in {where[file.layer_scale]}, the model in '
        f'{where[model.layer_scale]}; {use}'
    )
