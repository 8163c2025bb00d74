# SPDX-License-Identifier: Apache-2.0
"""mmengine's FSDP strategy, mended where a run goes on from a checkpoint."""

from __future__ import annotations

from mmengine._strategy.fsdp import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ..registry import STRATEGIES, register
from .sharding import ShardedAmpOptimWrapper

# What torch's optimizers save; the rest of a wrapper's state is mmengine's.
OPTIMIZER_KEYS = ('state', 'param_groups')


@register(STRATEGIES)
class ResumableFSDPStrategy(FSDPStrategy):
    """FSDP training that can be resumed.

    mmengine 0.10.7 hands the optimizer's state to torch in an order of arguments that torch has
    since changed (``--resume`` ends in a TypeError), and saves neither the loss scale nor the base
    learning rate. Takes the arguments of mmengine's ``FSDPStrategy``.
    """

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if get_device() == 'cpu':
            # torch gathers one moment after the other into one buffer. Moving it to the CPU copies
            # it, unless it is there already: then all moments would be saved as the last.
            self.optim_state_dict_config.offload_to_cpu = False
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: dict | OptimWrapper, model: nn.Module | None = None
    ) -> OptimWrapper:
        """As mmengine's.

        Raises:
            ValueError: An fp16 wrapper that looks for overflows on its own rank only.
        """
        built = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(built, AmpOptimWrapper) and not isinstance(built, ShardedAmpOptimWrapper):
            raise ValueError(
                f'optim_wrapper.type={type(built).__name__!r} lets each GPU decide alone whether a '
                'step overflowed, so that their parts of the parameters come apart under FSDP; use '
                "type='uniformer_mm.ShardedAmpOptimWrapper'."
            )
        return built

    def optim_state_dict(self) -> dict:
        """The whole optimizer state by parameter name, and what else the wrapper keeps."""
        whole = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        kept = self.optim_wrapper.state_dict()
        return {**whole, **{k: v for k, v in kept.items() if k not in OPTIMIZER_KEYS}}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Take this rank's part of what :meth:`optim_state_dict` returned."""
        whole = {key: state_dict[key] for key in OPTIMIZER_KEYS}
        own = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=whole
        )
        kept = {k: v for k, v in state_dict.items() if k not in OPTIMIZER_KEYS}
        self.optim_wrapper.load_state_dict({**own, **kept})
