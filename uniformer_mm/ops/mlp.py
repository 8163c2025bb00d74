# SPDX-License-Identifier: Apache-2.0
"""The MLP of a block: two matrix multiplications with an exact (erf) GELU between.

Where the Triton kernels run, the hidden map, the largest of a block, never exists in memory: the
backward pass computes it again from the input. An implementation is a module with these functions,
none of which records a gradient; sums and the GELU are in float32, also in half precision, and the
gradients of the parameters add their parts in a fixed order, so that a step repeats bit for bit:

* ``forward(x_BSC, w_HC, b_H, w_OH, b_O, add_BSO=None) -> y_BSO``: in the dtype of the matrices, to
  which ``x`` is rounded; with ``add`` the sum of both in the dtype of ``add``.
* ``input_grad(grad_BSO, x_BSC, w_HC, b_H, w_OH) -> x_grad_BSC``.
* ``weight_grad(grad_BSO, x_BSC, w_HC, b_H, w_OH, has_b_O)``: gradients of ``w_HC``, ``b_H``,
  ``w_OH`` and ``b_O`` in float32 (float64 for float64), the last one empty unless ``has_b_O``:
  whoever made ``grad_BSO`` may have summed it already.
* ``KEEPS_HIDDEN``: whether it is better to keep the hidden map than to call these gradients.

Shapes: ``B`` batch, ``S`` the axes ``H W`` or ``T H W``; in matrices ``C`` input channels, ``H``
hidden units, ``O`` output channels.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from .dispatch import resolve

OPERATION = 'mlp'


def implementation(x_BSC: Tensor, w_HC: Tensor, w_OH: Tensor, backend: str = 'auto') -> ModuleType:
    """The module that runs for these tensors.

    Args:
        x_BSC: A map.
        w_HC: First matrix.
        w_OH: Second matrix.
        backend: ``'auto'``, or a name of its rows in ``dispatch.BACKENDS``.

    Raises:
        ValueError: The backend is not known or cannot run here.
    """
    return resolve(OPERATION, backend, x_BSC.device, w_HC.dtype, w_HC.shape[1], w_OH.shape[0])
