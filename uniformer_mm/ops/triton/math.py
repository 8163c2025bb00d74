# SPDX-License-Identifier: Apache-2.0
"""What several Triton kernels need: places of a tile, the functions in norms and in a GELU."""

from __future__ import annotations

import triton
import triton.language as tl

# Abramowitz and Stegun 7.1.26, with the error function's argument scaled to the normal
# distribution's: at most 7.5e-8 off, and it shares its exponential with the density.
T_SLOPE = tl.constexpr(0.3275911 * 0.5**0.5)
T1 = tl.constexpr(0.254829592 / 2)
T2 = tl.constexpr(-0.284496736 / 2)
T3 = tl.constexpr(1.421413741 / 2)
T4 = tl.constexpr(-1.453152027 / 2)
T5 = tl.constexpr(1.061405429 / 2)
# exp(-h^2 / 2) as a power of two; 1 / sqrt(2 pi).
BELL_POWER = tl.constexpr(-0.7213475204444817)
BELL_TOP = tl.constexpr(0.3989422804014327)


@triton.jit
def normal(h):
    """Probability of a standard normal value below ``h``, and its density there.

    An exact GELU is ``h`` times the first, its slope the first plus ``h`` times the second.
    """
    bell = tl.exp2(h * h * BELL_POWER)
    # A division's slow path for huge divisors is not needed.
    root = tl.rsqrt(tl.abs(h) * T_SLOPE + 1.0)
    t = root * root
    tail = ((((t * T5 + T4) * t + T3) * t + T2) * t + T1) * t * bell
    return tl.where(h < 0, tail, 1.0 - tail), bell * BELL_TOP


@triton.jit
def tile(n, c, rows, C: tl.constexpr):
    """Offsets of rows ``n`` and channels ``c`` in a map of ``C`` channels, and which are in it."""
    inside = (n < rows)[:, None] & (c < C)[None, :]
    return n.to(tl.int64)[:, None] * C + c[None, :], inside


@triton.jit
def moments(x, c, eps, C: tl.constexpr):
    """Means of rows, the rows less these (0 beside the ``C`` channels), and 1 / deviations."""
    mean = tl.sum(x, axis=1) / C
    centred = tl.where((c < C)[None, :], x - mean[:, None], 0.0)
    return mean, centred, tl.rsqrt(tl.sum(centred * centred, axis=1) / C + eps)


@triton.jit
def standardise_grad(grad, xhat, rstd, C: tl.constexpr):
    """``rstd (grad - mean(grad) - xhat mean(grad xhat))``, the means over each row."""
    mean_grad = tl.sum(grad, axis=1) / C
    mean_both = tl.sum(grad * xhat, axis=1) / C
    return rstd[:, None] * (grad - mean_grad[:, None] - xhat * mean_both[:, None])


@triton.jit
def store_pair(parts_ptr, part, c, first_C, second_C, C: tl.constexpr):
    """Put two vectors of channels into ``parts_P2C``."""
    row_ptr = parts_ptr + part.to(tl.int64) * 2 * C + c
    tl.store(row_ptr, first_C, mask=c < C)
    tl.store(row_ptr + C, second_C, mask=c < C)
