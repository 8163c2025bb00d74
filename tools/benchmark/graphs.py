# SPDX-License-Identifier: Apache-2.0
"""A network whose passes are CUDA graphs, by PyTorch's own means."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARMUP = 3


class Graphed(nn.Module):
    """Captures each kind of pass when it is first asked for, and replays it from then on.

    What it returns is overwritten by the next pass of the same kind.

    Args:
        network: Any, on a GPU; its parameters stay where they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._calls: dict[tuple, Callable[[Tensor], object]] = {}

    def forward(self, x: Tensor) -> object:
        """One pass."""
        with_grad = torch.is_grad_enabled()
        key = (self.training, with_grad, x.shape, torch.is_autocast_enabled('cuda'))
        if key not in self._calls:
            self._calls[key] = (self._trained if with_grad else self._tested)(x)
        return self._calls[key](x)

    def _autocast(self) -> torch.autocast:
        # Casts that autocast remembers would belong to the graph.
        enabled = torch.is_autocast_enabled('cuda')
        dtype = torch.get_autocast_dtype('cuda')
        return torch.autocast('cuda', dtype=dtype, enabled=enabled, cache_enabled=False)

    def _trained(self, x: Tensor) -> Callable[[Tensor], object]:
        with self._autocast():
            return torch.cuda.make_graphed_callables(self.network, (x.detach().clone(),))

    def _tested(self, x: Tensor) -> Callable[[Tensor], object]:
        static_x, graph, stream = x.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with self._autocast():
            with torch.cuda.stream(stream):
                for _ in range(WARMUP):
                    self.network(static_x)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                y = self.network(static_x)

        def replay(x: Tensor) -> object:
            static_x.copy_(x)
            graph.replay()
            return y

        return replay
