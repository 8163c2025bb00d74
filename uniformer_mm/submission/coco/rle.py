# SPDX-License-Identifier: Apache-2.0
"""COCO's compressed run lengths, decoded far enough to know that a mask is sound.

A wrong string makes the C decoder of pycocotools write outside its buffer, so the runs of an
untrusted mask are added up here before anything decodes it.

Source of the format: pycocotools ``rleFrString``: five bits a character from ``'0'`` on, the sixth
says that more follow, runs from the fourth on are differences to the one before the last.
"""

from __future__ import annotations

import numpy as np

from ..issues import shown

_BITS = 5
_MORE = 1 << _BITS
_SIGN = 1 << (_BITS - 1)
# 2**35 is more pixels than any image has.
_GROUPS = 7


def run_lengths(counts: str) -> np.ndarray:
    """The runs of background and foreground, column by column, background first.

    Args:
        counts: Compressed runs as text.

    Returns:
        Lengths ``[R]``, int64, whatever the string says: negative ones are the caller's to refuse.

    Raises:
        ValueError: Characters outside ``'0'..'o'``, an unfinished last number, or too long a one.
    """
    try:
        codes = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64) - ord('0')
    except UnicodeEncodeError:
        raise ValueError('characters outside "0".."o"') from None
    if codes.size and (codes.min() < 0 or codes.max() >= 2 * _MORE):
        raise ValueError('characters outside "0".."o"')
    if not codes.size:
        return np.zeros(0, np.int64)
    ends = np.flatnonzero((codes & _MORE) == 0)
    if not ends.size or ends[-1] != codes.size - 1:
        raise ValueError('the last number is cut off')
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _GROUPS:
        raise ValueError('a number of more than 35 bits')
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), starts)
    values -= ((codes[ends] & _SIGN) != 0) * (np.int64(1) << (_BITS * lengths))
    # The second run of each parity is the first that others are differences to.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def mask_issue(segmentation: object, height: int | None, width: int | None) -> str | None:
    """What is wrong with a mask.

    Args:
        segmentation: A JSON value, expected to be ``{'size': [h, w], 'counts': text}``.
        height: Height of the image, if it is known.
        width: Width of the image, if it is known.

    Returns:
        What is wrong, in words, or None.
    """
    if not isinstance(segmentation, dict) or not {'size', 'counts'} <= segmentation.keys():
        return 'expected an object with size and counts'
    size, counts = segmentation['size'], segmentation['counts']
    if not (isinstance(size, list) and len(size) == 2 and all(type(s) is int for s in size)):
        return f'size {shown(size)}, expected [height, width]'
    if min(size) < 1 or size[0] * size[1] > 2**31:
        return f'size {shown(size)} is no image size'
    if None not in (height, width) and size != [height, width]:
        return f'size {shown(size)}, but the image has [{height}, {width}] (height, width)'
    if not isinstance(counts, str):
        kind = 'a list (uncompressed)' if isinstance(counts, list) else type(counts).__name__
        return f'counts is {kind}, expected compressed run lengths as text'
    try:
        runs = run_lengths(counts)
    except ValueError as error:
        return f'counts cannot be decoded: {error}'
    if runs.size and runs.min() < 0:
        return f'counts hold a run of {runs.min()} pixels'
    if runs.sum() != size[0] * size[1]:
        return f'counts cover {runs.sum():,} pixels, but size {size} has {size[0] * size[1]:,}'
    return None
