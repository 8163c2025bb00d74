# SPDX-License-Identifier: Apache-2.0
"""NumPy's arrays and scalars out of a pickle, without NumPy's own reconstruction.

A crafted dtype makes that follow foreign pointers. Only numbers and text of checked sizes are made.
The doctor writes this text into mmengine, too (``env/repairs/mmengine_weights_only.py``).
"""

import math

import numpy

_MOST_ELEMENTS = 1 << 28


class SavedDtype:
    """Stands in for numpy.dtype: keeps kind, size and byte order, nothing else."""

    def __init__(self, code, align=False, copy=False):
        if not isinstance(code, str) or code[:1] not in tuple('biufUS'):
            raise ValueError(f'the checkpoint holds an array of dtype {code!r}')
        self.code, self.order = code, '='

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 8:
            raise ValueError('the checkpoint holds a damaged dtype')
        order, subarray, names, fields = state[1:5]
        if order not in ('<', '>', '|', '=') or (subarray, names, fields) != (None,) * 3:
            raise ValueError('the checkpoint holds a dtype that is no number')
        self.order = order

    def real(self):
        """The dtype, made anew from what was checked."""
        if not self.code[1:].isdigit() or len(self.code) > 8:
            raise ValueError(f'the checkpoint holds an array of dtype {self.code!r}')
        return numpy.dtype(self.order + self.code)


class SavedArray(numpy.ndarray):
    """An array that is filled by its state; it pickles as a plain array."""

    def __new__(cls):
        """An empty array."""
        return numpy.ndarray.__new__(cls, (0,), numpy.float64)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if not (
            isinstance(dtype, SavedDtype)
            and isinstance(data, bytes)
            and isinstance(shape, tuple)
            and len(shape) <= 8
            and all(type(n) is int and 0 <= n <= _MOST_ELEMENTS for n in shape)
        ):
            raise ValueError('the checkpoint holds a damaged array')
        real = dtype.real()
        if math.prod(shape) * real.itemsize != len(data):
            raise ValueError(f'the checkpoint holds an array of shape {shape} in {len(data)} bytes')
        super().__setstate__((1, shape, real, bool(fortran), data))

    def __reduce__(self):
        return self.view(numpy.ndarray).__reduce__()


class ArrayName:
    """Stands in for numpy.ndarray, which is only named, as the type to rebuild."""


def rebuild_array(kind, shape, code):
    """In place of numpy's _reconstruct: an empty array, whose state follows."""
    if kind is not ArrayName:
        raise ValueError('the checkpoint holds an array of another class')
    return SavedArray()


def rebuild_scalar(dtype, data):
    """In place of numpy's scalar."""
    if not isinstance(dtype, SavedDtype) or not isinstance(data, bytes):
        raise ValueError('the checkpoint holds a damaged number')
    real = dtype.real()
    if real.itemsize != len(data) or not data:
        raise ValueError('the checkpoint holds a damaged number')
    return numpy.frombuffer(data, real)[0]


# NumPy 2 writes numpy._core where NumPy 1 writes numpy.core.
NUMPY_VALUES = [
    (ArrayName, 'numpy.ndarray'),
    (SavedDtype, 'numpy.dtype'),
    *((rebuild_array, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')),
    *((rebuild_scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')),
    # Never named in a file; torch looks here for what it may give a state to.
    (SavedArray, 'uniformer_mm.SavedArray'),
]
