# SPDX-License-Identifier: Apache-2.0
"""What a run writes down of its course: bounded in length, and no reason to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.logging import MessageHub
from mmengine.visualization import LocalVisBackend


def shorten(hub: MessageHub, length: int) -> None:
    """Let each history of ``hub`` keep its last ``length`` values, now and from now on.

    mmengine keeps a million of each, copies them at every update and writes them into each
    checkpoint.
    """
    for history in hub.log_scalars.values():
        history.max_length = min(history.max_length, length)
        history._log_history = history._log_history[-length:]
        history._count_history = history._count_history[-length:]


def survive_refusals(runner: Any) -> None:
    """Let ``scalars.json`` lose a line where the disk refuses it; mmengine would lose the run."""
    for backend in getattr(runner.visualizer, '_vis_backends', {}).values():
        if isinstance(backend, LocalVisBackend) and not isinstance(backend._dump, _Patient):
            backend._dump = _Patient(backend._dump, runner.logger.warning)


class _Patient:
    """A function that writes; what the disk refuses is said once and counted."""

    def __init__(self, write: Callable[..., None], warn: Callable[[str], object]) -> None:
        self.write, self.warn = write, warn
        self.refused = 0

    def __call__(self, entry: dict, path: str, *args: Any) -> None:
        try:
            self.write(entry, path, *args)
        except OSError as error:
            self.refused += 1
            if self.refused == 1:
                self.warn(
                    f'{path} cannot be written ({error.strerror or error}): the line of step '
                    f'{entry.get("step")} is lost there, and perhaps later ones; training goes on.'
                )
