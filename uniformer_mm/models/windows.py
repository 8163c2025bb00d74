# SPDX-License-Identifier: Apache-2.0
"""Square windows of a map, which is padded with zeros at the bottom and right to whole ones.

Shapes as in ``attention.py``; ``L`` rows of the map (its tokens), ``P`` rows of all windows.
Source: Sense-X/UniFormer @52a0415 ``object_detection/mmdet/models/backbones/uniformer.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .functional import is_compiling, is_recorded
from .fused import run


@dataclass(frozen=True, eq=False)
class WindowRows:
    """Which rows of the windows of a padded map are which rows of the map.

    Attributes:
        places: Of each row of the map, its place among the rows of the windows, ``(L,)``.
        owners: Of each row of the windows, its row of the map, ``(P,)``; any for padding.
        padding: Rows of the windows that pad the map: their places, or a mask ``(P,)``.
    """

    places: Tensor
    owners: Tensor
    padding: Tensor


# By batch, size, window and device: what somebody holds, and the last ones asked for.
_held: WeakValueDictionary[tuple, WindowRows] = WeakValueDictionary()
_recent: dict[tuple, WindowRows] = {}
MAX_RECENT = 64


def recent() -> tuple[WindowRows, ...]:
    """The last answers of :func:`window_rows`.

    Who replays launches keeps what they read; who is going to record them, for as long, since it
    cannot be made during a recording.
    """
    return tuple(_recent.values())


def window_rows(
    batch: int, size: tuple[int, int, int], window_size: int, device: torch.device
) -> WindowRows:
    """Which rows are whose, with places of the padding; remembered for each size.

    Args:
        batch: Samples B.
        size: T, H and W of the map.
        window_size: Side of a window.
        device: Where the answer is wanted.
    """
    key = batch, size, window_size, device
    found = _held.get(key)
    if found is None:
        # Not tensors of inference mode, which a later training step could not keep.
        with torch.inference_mode(False):
            rows = find_rows(batch, size, window_size, torch.device('cpu'))
            padding = rows.padding.nonzero()[:, 0]
            tensors = (tensor.to(device) for tensor in (rows.places, rows.owners, padding))
            found = _held[key] = WindowRows(*tensors)
    _recent.pop(key, None)
    _recent[key] = found
    if len(_recent) > MAX_RECENT:
        del _recent[next(iter(_recent))]
    return found


def find_rows(
    batch: int, size: tuple[int, int, int], window_size: int, device: torch.device
) -> WindowRows:
    """Which rows are whose, with a mask of the padding.

    By arithmetic on row numbers, for the sake of compilers: a map with axes that count rows and
    columns of windows would be another program where one of them is 1.

    Args:
        batch: As for :func:`window_rows`.
        size: As for :func:`window_rows`.
        window_size: As for :func:`window_rows`.
        device: As for :func:`window_rows`.
    """
    (T, H, W), w = size, window_size
    rows, cols = (H + w - 1) // w, (W + w - 1) // w
    number_L = torch.arange(batch * T * H * W, device=device)
    frame_L, y_L, x_L = number_L // (W * H), number_L // W % H, number_L % W
    window_L = (frame_L // T * rows + y_L // w) * cols + x_L // w
    places_L = ((window_L * T + frame_L % T) * w + y_L % w) * w + x_L % w
    number_P = torch.arange(batch * rows * cols * T * w * w, device=device)
    window_P = number_P // (T * w * w)
    frame_P = window_P // (rows * cols) * T + number_P // (w * w) % T
    y_P = window_P // cols % rows * w + number_P // w % w
    x_P = window_P % cols * w + number_P % w
    padding_P = (y_P >= H) | (x_P >= W)
    owners_P = torch.where(padding_P, 0, (frame_P * H + y_P) * W + x_P)
    return WindowRows(places_L, owners_P, padding_P)


def _select(x_NC: Tensor, rows: Tensor, zeros: Tensor | None) -> Tensor:
    """Rows of a map, of which some become zeros: their places, or a mask."""
    y_NC = x_NC.index_select(0, rows)
    if zeros is None:
        return y_NC
    if zeros.dtype is torch.bool:
        return torch.where(zeros[:, None], 0, y_NC)
    return y_NC.index_fill_(0, zeros, 0)


class _Select(torch.autograd.Function):
    """:func:`_select`, whose gradient is one too: each row is taken once.

    The framework's would add rows up, for all it knows several times the same.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NC: Tensor,
        rows: Tensor,
        zeros: Tensor | None,
        back: Tensor,
        back_zeros: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(back, back_zeros, rows, zeros)
        return _select(x_NC, rows, zeros)

    @staticmethod
    def backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor | None, ...]:
        return _Select.apply(grad_NC, *ctx.saved_tensors), None, None, None, None


class Windows:
    """The windows of maps of one size.

    One copy to them and one back; padding costs one more each only where a tracer looks on, which
    knows plain operators.

    Args:
        x_BTHWC: A map of that size.
        window_size: Side of a window.

    Attributes:
        rows: Which rows are whose; None where it takes no rows.
    """

    def __init__(self, x_BTHWC: Tensor, window_size: int) -> None:
        B, T, H, W, _ = x_BTHWC.shape
        self.size, self.window_size = (T, H, W), window_size
        self.rows: WindowRows | None = None
        if is_compiling():
            # Also for maps of whole windows, so that one program serves all sizes.
            self.rows = find_rows(B, self.size, window_size, x_BTHWC.device)
            return
        self.pads = bool(H % window_size or W % window_size)
        if self.pads and not is_recorded():
            self.rows = window_rows(B, self.size, window_size, x_BTHWC.device)

    def split(self, x_BTHWC: Tensor) -> Tensor:
        """The windows of a map, tokens in the order frame, row, column.

        Shape: ``x_BTHWC -> x_GNC``.
        """
        (T, H, W), w, C = self.size, self.window_size, x_BTHWC.shape[-1]
        if self.rows is not None:
            rows = self.rows
            x_LC = x_BTHWC.flatten(0, -2)
            x_PC = run(_Select, x_LC, rows.owners, rows.padding, rows.places, None)
            return x_PC.unflatten(0, (-1, T * w * w))
        if self.pads:
            x_BTHWC = F.pad(x_BTHWC, (0, 0, 0, -W % w, 0, -H % w))
        x_BTrwcwC = x_BTHWC.unflatten(3, (-1, w)).unflatten(2, (-1, w))
        return x_BTrwcwC.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, T * w * w, C)

    def join(self, x_GNC: Tensor) -> Tensor:
        """The map of windows, without what was padded. Shape: ``x_GNC -> x_BTHWC``."""
        (T, H, W), w, C = self.size, self.window_size, x_GNC.shape[-1]
        if self.rows is not None:
            rows = self.rows
            x_PC = x_GNC.flatten(0, 1)
            x_LC = run(_Select, x_PC, rows.places, None, rows.owners, rows.padding)
            return x_LC.unflatten(0, (-1, T, H, W))
        x_BrcTwwC = x_GNC.reshape(-1, (H + w - 1) // w, (W + w - 1) // w, T, w, w, C)
        x_BTrwcwC = x_BrcTwwC.permute(0, 3, 1, 4, 2, 5, 6)
        return x_BTrwcwC.flatten(4, 5).flatten(2, 3)[:, :, :H, :W]
