# SPDX-License-Identifier: Apache-2.0
"""Learning rates that fall from the output towards the input, block by block."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from ..models.uniformer import UniFormer
from ..registry import OPTIM_WRAPPER_CONSTRUCTORS, register

RATE = 'layer_decay_rate'


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's parameter-wise rules, then a factor on the rate that depends on the depth.

    A parameter of depth d, of n depths (see ``get_layer_depth`` of the backbone), learns at ``lr *
    rate ** (n - 1 - d)``: necks, heads and output norms at the full rate, each block closer to the
    input at ``rate`` times that of the next. Every other rule of ``paramwise_cfg`` (``custom_keys``
    with ``lr_mult`` and ``decay_mult``, ``norm_decay_mult``, ``flat_decay_mult``, ...) stays in
    force, and a ``lr_mult`` multiplies. mmdet's and mmseg's constructors know other backbones only,
    mmpretrain's and mmpose's belong to one toolbox.

    Args:
        optim_wrapper_cfg: Config of the wrapper with its ``optimizer``, which must give ``lr``.
        paramwise_cfg: mmengine's rules and ``layer_decay_rate``, above 0 and at most 1.

    Raises:
        ValueError: No or an impossible ``layer_decay_rate``, no ``lr``, or, when called, a model
            without a UniFormer.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='uniformer_mm.LayerDecayConstructor',
        ...     optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01),
        ...     paramwise_cfg=dict(layer_decay_rate=0.95),
        ... )
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get(RATE)
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(
                f'paramwise_cfg: {RATE}={rate!r} must be a number above 0 and at most 1, such as '
                '0.95; without layer-wise decay leave out the constructor.'
            )
        if self.base_lr is None:
            raise ValueError('optimizer: lr must be given, since layer-wise decay multiplies it.')
        self.rate = rate

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None
    ) -> None:
        """Append a group for each parameter of ``module``; mmengine recurses through this method.

        Raises:
            ValueError: The model contains no UniFormer.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        backbones = {
            f'{name}.' if name else '': child
            for name, child in module.named_modules()
            if isinstance(child, UniFormer)
        }
        if not backbones:
            raise ValueError(
                f'{RATE} needs a UniFormer in the model, but {type(module).__name__} has none; use '
                'the default constructor.'
            )
        names = {id(param): name for name, param in module.named_parameters()}
        for group in params:
            (param,) = group['params']
            scale = self._scale(names[id(param)], backbones)
            group['lr'] = group.get('lr', self.base_lr) * scale

    def _scale(self, name: str, backbones: dict[str, UniFormer]) -> float:
        for prefix, backbone in backbones.items():
            if name.startswith(prefix):
                depth, num_depths = backbone.get_layer_depth(name, prefix)
                return self.rate ** (num_depths - 1 - depth)
        return 1.0
