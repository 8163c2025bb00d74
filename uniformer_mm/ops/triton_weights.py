# SPDX-License-Identifier: Apache-2.0
"""Launches of the kernels in ``triton_weight_kernels.py``. Names and shapes as in ``rows.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import triton_weight_kernels as kernels
from .launch import Constants
from .rows import Product

# Results begin at multiples of 16 bytes in the smallest dtype.
ALIGNMENT = 8
FOLD = Constants(FIELDS=kernels.FIELDS, BLOCK_O=4, BLOCK_C=256, num_warps=4)
TRANSPOSE = Constants(FIELDS=kernels.FIELDS, BLOCK_O=64, BLOCK_C=16, num_warps=4)

ADDRESSES = 6
NO_RUNNING = (None, None, 0.0)


class _Table(NamedTuple):
    """What a kernel is told of its matrices, on the device.

    Attributes:
        fields: ``(J, FIELDS)``.
        eps: ``(J,)``.
        job_of_tile: One number for each program.
        tiles: How many programs.
        pieces: Sizes of the pieces of the result: matrices, biases, and what lies between.
        places: Piece and shape of each matrix, and the piece of its bias.
    """

    fields: Tensor
    eps: Tensor
    job_of_tile: Tensor
    tiles: tuple[int]
    pieces: tuple[int, ...]
    places: tuple[tuple[int, tuple[int, int], int], ...]


# By the addresses and shapes of the matrices: good for as long as they stay where they are, since
# only what they hold is read. None where one launch cannot read them all.
_tables: dict[tuple, _Table | None] = {}
MAX_TABLES = 1024


def tables() -> tuple[_Table | None, ...]:
    """The tables at present: what replays launches has to keep those that the launches read."""
    return tuple(_tables.values())


def _table(
    key: tuple,
    tensors: Sequence[Sequence[Tensor | None]],
    eps: tuple[float, ...],
    block_o: int,
    transposes: bool,
) -> _Table | None:
    """The table of matrices, each with its vectors; remembered under ``key``."""
    found = _tables.get(key, False)
    if found is not False:
        return found
    if len(_tables) >= MAX_TABLES:
        _tables.clear()
    like = tensors[0][0]
    alike = all(
        tensor is None
        or (tensor.dtype is like.dtype and tensor.device == like.device and tensor.is_contiguous())
        for job in tensors
        for tensor in job
    )
    _tables[key] = _make_table(tensors, eps, block_o, transposes) if alike else None
    return _tables[key]


def _make_table(
    tensors: Sequence[Sequence[Tensor | None]],
    eps: tuple[float, ...],
    block_o: int,
    transposes: bool,
) -> _Table:
    fields, job_of_tile, pieces, places = [], [], [], []

    def piece(elements: int) -> tuple[int, int]:
        """Number and beginning of a new piece; the one after it begins aligned too."""
        number, at = len(pieces), sum(pieces)
        pieces.append(elements)
        if elements % ALIGNMENT:
            pieces.append(-elements % ALIGNMENT)
        return number, at

    for job, vectors in enumerate(tensors):
        rows = vectors[0].shape[0]
        columns = vectors[0].numel() // rows
        matrix, matrix_at = piece(rows * columns)
        bias, bias_at = piece(rows)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in vectors]
        addresses += [0] * (ADDRESSES - len(addresses))
        fields.append([*addresses, rows, columns, len(job_of_tile), matrix_at, bias_at])
        places.append((matrix, (columns, rows) if transposes else (rows, columns), bias))
        job_of_tile += [job] * -(-rows // block_o)
    device = tensors[0][0].device
    return _Table(
        torch.tensor(fields, dtype=torch.int64, device=device),
        torch.tensor(eps, dtype=torch.float32, device=device),
        torch.tensor(job_of_tile, dtype=torch.int32, device=device),
        (len(job_of_tile),),
        tuple(pieces),
        tuple(places),
    )


def _result(table: _Table, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Memory for all matrices and biases, and its pieces."""
    out = torch.empty((sum(table.pieces),), dtype=dtype, device=like.device)
    return out, out.split_with_sizes(table.pieces)


def fold_alike(
    products: Sequence[Product], dtype: torch.dtype
) -> list[tuple[Tensor, Tensor]] | None:
    """``fold_all`` of ``rows.py``; None for products that differ in dtype, or with strides."""
    tensors = [(*product[:4], *(product.running or NO_RUNNING)[:2]) for product in products]
    eps = tuple((product.running or NO_RUNNING)[2] for product in products)
    like = products[0].weight
    key = (
        like.device,
        eps,
        *[0 if tensor is None else tensor.data_ptr() for job in tensors for tensor in job],
        *[None if tensor is None else tensor.dtype for job in tensors for tensor in job],
        *[(product.weight.shape, product.weight.stride()) for product in products],
    )
    table = _table(key, tensors, eps, FOLD['BLOCK_O'], transposes=False)
    if table is None:
        return None
    out, pieces = _result(table, like, dtype)
    kernels.fold_all(table.tiles, (table.fields, table.eps, table.job_of_tile, like, out), (), FOLD)
    return [(pieces[matrix].view(*shape), pieces[bias]) for matrix, shape, bias in table.places]


def transpose_all(weights_CK: Sequence[Tensor]) -> list[Tensor]:
    """See ``rows.py``."""
    like = weights_CK[0]
    tensors = [(weight,) for weight in weights_CK]
    forms = [
        (weight.data_ptr(), weight.dtype, weight.shape, weight.stride()) for weight in weights_CK
    ]
    key = like.device, *forms
    table = _table(key, tensors, (0.0,), TRANSPOSE['BLOCK_O'], transposes=True)
    if table is None:
        return [weight_CK.flatten(1).t().contiguous() for weight_CK in weights_CK]
    out, pieces = _result(table, like, like.dtype)
    kernels.transpose_all(table.tiles, (table.fields, table.job_of_tile, like, out), (), TRANSPOSE)
    return [pieces[matrix].view(*shape) for matrix, shape, _ in table.places]
