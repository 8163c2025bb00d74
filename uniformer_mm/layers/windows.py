# SPDX-License-Identifier: Apache-2.0
"""Square windows of a map. A window of a clip spans all frames.

The map is padded with zeros at the bottom and right to whole windows. Padding is attended to, as in
the official code: masking it changes the outputs. ``G`` windows, ``w`` window side.
Source: Sense-X/UniFormer @52a0415 ``object_detection/mmdet/models/backbones/uniformer.py``.
"""

from __future__ import annotations

from torch import Size, Tensor
from torch.nn import functional as F  # noqa: N812


def split_windows(tokens: Tensor, shape: Size, ndim: int, window_size: int) -> Tensor:
    """The windows of a map, tokens in the order frame, row, column.

    Args:
        tokens: ``(B, N, C)``, the tokens of a map.
        shape: Of the map, ``(B, C, *S)``.
        ndim: Number of axes S.
        window_size: Side of a window.

    Returns:
        ``(G, T w w, C)`` with the windows of a sample in the order row, column.
    """
    T, H, W, w = shape[2] if ndim == 3 else 1, shape[-2], shape[-1], window_size
    rows, cols = (H + w - 1) // w, (W + w - 1) // w
    x = tokens.reshape(shape[0], T, H, W, shape[1])
    # More than can be missing, then cut: padding by a number that depends on the size, and may be
    # 0, is several graphs to a compiler.
    x = F.pad(x, (0, 0, 0, w, 0, w))[:, :, : rows * w, : cols * w]
    x = x.reshape(shape[0], T, rows, w, cols, w, shape[1]).permute(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(shape[0] * rows * cols, T * w * w, shape[1])


def join_windows(windows: Tensor, shape: Size, ndim: int, window_size: int) -> Tensor:
    """The inverse of :func:`split_windows`, without what was padded. Returns ``(B, N, C)``."""
    T, H, W, w = shape[2] if ndim == 3 else 1, shape[-2], shape[-1], window_size
    rows, cols = (H + w - 1) // w, (W + w - 1) // w
    # Columns before rows: with rows first it would depend on the size whether the cut is a view,
    # and that is another graph to a compiler.
    x = windows.reshape(shape[0], rows, cols, T, w, w, shape[1]).permute(0, 3, 2, 5, 1, 4, 6)
    x = x.reshape(shape[0], T, cols * w, rows * w, shape[1])[:, :, :W, :H]
    return x.transpose(2, 3).reshape(shape[0], T * H * W, shape[1])
