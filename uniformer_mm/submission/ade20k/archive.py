# SPDX-License-Identifier: Apache-2.0
"""ADE20K (SceneParse150): a zip file of label maps, one PNG per test image.

Source of the format: CSAILVision/sceneparsing, README: single channel, values 1..150 for the
classes and 0 for "other", which no ground truth counts; the stem is the image's.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...files import prepare, require_plain, write_zip
from ..issues import Issues
from ..reading import Members, open_members

CLASSES = 150
_NAME = re.compile(r'^ADE_(test|val)_[0-9]{8}\.png$')
# Where the first chunk of a PNG file, IHDR, says how many bits a sample has.
_DEPTH_AT = 24


def read_label_map(content: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a label map.

    Args:
        content: A PNG file.
        size: Width and height that it must have, if they are known.

    Returns:
        Labels ``[H, W]``, uint8.

    Raises:
        ValueError: No PNG file, another mode or size (seen before it is decoded), or damaged.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns from 89 million pixels on; no image of ADE20K comes near.
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=('PNG',))
    except UnidentifiedImageError:
        raise ValueError('not a PNG file') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f'it is not decoded ({error})') from error
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'not a readable PNG file ({error})') from error
    with image:
        if image.mode != 'L':
            raise ValueError(f'mode {image.mode}, expected L (one channel of 8 bits, no palette)')
        if size is not None and image.size != size:
            raise ValueError(
                f'{image.size[0]}x{image.size[1]} pixels, but its image has {size[0]}x{size[1]}'
            )
        # Pillow gives mode L to 2 and 4 bits too, and stretches their values to 0..255.
        if content[_DEPTH_AT] != 8:
            raise ValueError(f'{content[_DEPTH_AT]} bits a pixel, expected 8')
        try:
            return np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f'damaged ({error})') from error


def check_ade20k(
    members: Members,
    issues: Issues,
    *,
    stems: dict[str, tuple[int, int] | None] | None,
    add_one: bool = False,
) -> None:
    """Check the label maps of an archive or folder.

    Args:
        members: What holds them.
        issues: Where issues go.
        stems: Sizes by the stems of the official images, if the list is at hand.
        add_one: The labels are 0..149 and are raised before they are written.
    """
    first, last = (0, CLASSES - 1) if add_one else (1, CLASSES)
    if not members.names:
        issues.add('empty', '', 'no files at all')
    seen = set()
    for name in members.names:
        stem = name.removesuffix('.png')
        if stems is None and not _NAME.match(name):
            expected = 'ADE_test_00000001.png and so on at the root'
            issues.add('wrong file name', name, f'expected {expected}')
            continue
        if stems is not None and (stem not in stems or stem == name):
            issues.add('image not in the official list', name, f'not among the {len(stems):,}')
            continue
        seen.add(stem)
        try:
            labels_HW = read_label_map(members.read(name), (stems or {}).get(stem))
        except ValueError as error:
            issues.add('bad label map', name, str(error))
            continue
        low, high = int(labels_HW.min()), int(labels_HW.max())
        if low < first or high > last:
            hint = ''
            if low == 0 and not add_one:
                hint = '; 0 is "other", which never counts as right: write class index + 1'
            issues.add(
                'label out of range',
                name,
                f'values {low} to {high}, expected {first} to {last}{hint}',
            )
    if stems is None:
        issues.unchecked = 'names and sizes'
        return
    for stem in stems:
        if stem not in seen:
            issues.add('image missing', f'{stem}.png', 'every test image needs a label map')
    if None in stems.values():
        issues.note('sizes were not compared: the list has names only (give the image folder)')


def write_ade20k(
    predictions: str | PathLike,
    stems: dict[str, tuple[int, int] | None],
    folder: str | PathLike,
    *,
    algorithm: str,
    add_one: bool = False,
    overwrite: bool = False,
) -> tuple[Path, Issues]:
    """Write the archive of a leaderboard entry.

    Args:
        predictions: Folder (or archive) of PNG files, such as mmseg's ``IoUMetric`` writes with
            ``format_only=True, output_dir=...``.
        stems: Sizes by the stems of the official images.
        folder: Where to write.
        algorithm: Name of the entry; the benchmark prescribes no file name.
        add_one: The labels are class indices from 0; mmseg writes those where the data set does
            not say ``reduce_zero_label``.
        overwrite: Replace an existing archive.

    Returns:
        The archive, and notes on it.

    Raises:
        ValueError: Label maps that no server could score, or output that cannot be written.
    """
    require_plain(algorithm)
    target = prepare(Path(folder) / f'ade20k_{algorithm}_results.zip', overwrite=overwrite)
    members = open_members(predictions)
    issues = Issues(str(predictions))
    check_ade20k(members, issues, stems=stems, add_one=add_one)
    low_labels = 'label out of range' in issues.kinds and not add_one
    issues.refuse(
        'Nothing was written.'
        + (' If the labels are class indices from 0, pass --add-one.' if low_labels else '')
    )

    def contents() -> Iterator[tuple[str, bytes]]:
        for name in members.names:
            content = members.read(name)
            yield name, _raised(content) if add_one else content

    write_zip(target, contents(), compress=False)
    return target, issues


def _raised(content: bytes) -> bytes:
    output = io.BytesIO()
    Image.fromarray(read_label_map(content) + np.uint8(1)).save(output, format='PNG')
    return output.getvalue()
