# SPDX-License-Identifier: Apache-2.0
"""Inputs of every kind: what they stand for, how they are read, what is said of bad ones."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from uniformer_mm.errors import UnreadableError
from uniformer_mm.inference.clips import ClipWriter, frame_rate, read_frames, spread_frames
from uniformer_mm.inference.inputs import Source, find_sources, read_image

# Left half red, right half blue; a corner of the upper side green.
COLORS = np.zeros((40, 60, 3), np.uint8)
COLORS[:, :30, 0] = COLORS[:, 30:, 2] = 200
COLORS[:10, :20] = (0, 200, 0)


def saved(folder: Path, name: str, mode: str = 'RGB', **options) -> Path:
    path = folder / name
    Image.fromarray(COLORS).convert(mode, palette=Image.Palette.ADAPTIVE).save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    (source,) = find_sources(path)
    return read_image(source)


@pytest.mark.parametrize(
    ('name', 'mode'),
    [('a.png', 'RGB'), ('a b ü 図.png', 'RGB'), ('a.png', 'RGBA'), ('a.png', 'P'), ('a.bmp', 'RGB'),
     ('a.tif', 'RGB'), ('a.webp', 'RGB')],
)  # fmt: skip
def test_images_of_all_kinds(tmp_path, name, mode) -> None:
    options = {'lossless': True} if name.endswith('webp') else {}
    assert (read(saved(tmp_path, name, mode, **options)) == COLORS).all()


@pytest.mark.parametrize('mode', ['RGB', 'CMYK'])
def test_jpeg(tmp_path, mode) -> None:
    image = read(saved(tmp_path, 'a.jpg', mode, quality=95)).astype(int)
    assert abs(image[20, 10] - (200, 0, 0)).max() < 20
    assert abs(image[20, 50] - (0, 0, 200)).max() < 20


def test_grey_and_16_bit(tmp_path) -> None:
    grey = read(saved(tmp_path, 'grey.png', 'L'))
    assert grey.shape == COLORS.shape and (grey[..., 0] == grey[..., 2]).all()
    deep = np.full((8, 9), 0x8040, np.uint16)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    assert (read(tmp_path / 'deep.png') == 0x80).all()


def test_exif_rotation(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown turned clockwise
    image = read(saved(tmp_path, 'a.jpg', exif=exif, quality=95)).astype(int)
    assert image.shape == (60, 40, 3)
    # The upper left corner has gone to the upper right.
    assert abs(image[4, 36] - (0, 200, 0)).max() < 30


def test_a_folder_and_a_pattern_are_sorted(tmp_path) -> None:
    for name in ('b.png', 'a.jpg', 'c.PNG'):
        saved(tmp_path, name)
    (tmp_path / 'notes.txt').write_text('not an input')
    (tmp_path / 'more').mkdir()
    assert [one.name for one in find_sources(tmp_path)] == ['a.jpg', 'b.png', 'c.PNG']
    assert [one.name for one in find_sources(f'{tmp_path}/*.png')] == ['b.png']
    listed = [one.name for one in find_sources([str(tmp_path), tmp_path / 'b.png'])]
    assert listed == ['a.jpg', 'b.png', 'c.PNG', 'b.png']


def test_standard_input_arrays_and_cameras(tmp_path, monkeypatch) -> None:
    data = io.BytesIO()
    Image.fromarray(COLORS).save(data, 'PNG')
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(data.getvalue())))
    (source,) = find_sources('-')
    assert (read_image(source) == COLORS).all()
    image, clip, camera, other = find_sources([COLORS, COLORS[None], 0, '1'])
    assert not image.is_clip and clip.is_clip
    assert (camera.value, camera.is_clip, other.value) == (0, True, 1)
    with pytest.raises(ValueError, match=r'shape \(40, 60\) and type uint8; give an RGB image'):
        list(find_sources(COLORS[..., 0]))


@pytest.mark.parametrize(
    ('make', 'why'),
    [
        (lambda path: None, 'No such file'),
        (lambda path: path.write_bytes(b''), 'it is empty'),
        (lambda path: path.write_text('<html>'), 'no image that OpenCV can decode'),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, make, why) -> None:
    make(tmp_path / 'bad.jpg')
    with pytest.raises(UnreadableError, match=rf'bad\.jpg: .*{why}'):
        read(tmp_path / 'bad.jpg')


def test_an_empty_folder_or_pattern_is_named(tmp_path) -> None:
    for text in (tmp_path, f'{tmp_path}/*.jpg'):
        with pytest.raises(UnreadableError, match='no image and no clip is there'):
            read(text)


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [np.full((height, width, 3), 10 * index, np.uint8) for index in range(count)]


def test_a_clip_comes_back(tmp_path) -> None:
    with ClipWriter(tmp_path / 'clip.mp4', rate=12) as film:
        for frame in frames(20):
            film.write(frame)
    assert [path.name for path in tmp_path.iterdir()] == ['clip.mp4']
    found = list(read_frames(tmp_path / 'clip.mp4'))
    assert np.abs(np.array([one.mean() for one in found]) - 10 * np.arange(20)).max() < 4
    assert frame_rate(tmp_path / 'clip.mp4') == pytest.approx(12, abs=0.1)
    chosen = [one.mean() for one in spread_frames(tmp_path / 'clip.mp4', 3)]
    assert np.abs(np.array(chosen) - (0, 100, 190)).max() < 4
    (middle,) = spread_frames(tmp_path / 'clip.mp4', 1)
    assert abs(middle.mean() - 100) < 4


def test_odd_sizes_are_cut(tmp_path) -> None:
    with ClipWriter(tmp_path / 'clip.mp4') as film:
        for frame in frames(3, 49, 65):
            film.write(frame)
    assert next(read_frames(tmp_path / 'clip.mp4')).shape == (48, 64, 3)


def write_and_fail(path: Path) -> None:
    with ClipWriter(path) as film:
        film.write(frames(1)[0])
        raise KeyboardInterrupt


def test_a_clip_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(tmp_path / 'clip.mp4')
    with pytest.raises(ValueError, match='no frame was written'), ClipWriter(tmp_path / 'b.mp4'):
        pass
    assert not list(tmp_path.iterdir())


def test_a_clip_that_is_none(tmp_path) -> None:
    (tmp_path / 'bad.mp4').write_bytes(b'no clip')
    with pytest.raises(UnreadableError, match=r'bad\.mp4: no frame could be read'):
        list(read_frames(tmp_path / 'bad.mp4'))
    assert next(find_sources(tmp_path / 'bad.mp4')).is_clip
    assert not Source('a', COLORS).is_clip
