# SPDX-License-Identifier: Apache-2.0
"""mmengine's initialisation by ``init_cfg`` for a module that does not import ``mmengine.model``.

That package imports FSDP and its optimizers, which doubles the time of ``import torch``, and a
network that is used without a toolbox has no use for them. Toolboxes ask their parts for
``init_weights`` and ``is_init`` and for no base class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from torch import nn


class InitCfgModule(nn.Module):
    """What mmengine's ``BaseModule`` gives a module, by calling it.

    Args:
        init_cfg: Initializers of mmengine as dicts, or None.
    """

    def __init__(self, init_cfg: Mapping | Sequence[Mapping] | None = None) -> None:
        super().__init__()
        self.init_cfg = copy.deepcopy(init_cfg)
        self._is_init = False

    @property
    def is_init(self) -> bool:
        """Whether :meth:`init_weights` was called."""
        return self._is_init

    @is_init.setter
    def is_init(self, value: bool) -> None:
        self._is_init = value

    def init_weights(self) -> None:
        """Run the initializers of ``init_cfg``; see ``mmengine.model.BaseModule``."""
        from mmengine.model import BaseModule

        BaseModule.init_weights(self)

    def _dump_init_info(self) -> None:
        from mmengine.model import BaseModule

        BaseModule._dump_init_info(self)

    def __repr__(self) -> str:
        text = super().__repr__()
        return f'{text}\ninit_cfg={self.init_cfg}' if self.init_cfg else text
