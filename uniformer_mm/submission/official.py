# SPDX-License-Identifier: Apache-2.0
"""The official lists: which images or videos a submission has to be about."""

from __future__ import annotations

import csv
import io
import itertools
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .issues import shown
from .reading import is_integer, parse_json, read_bytes

_IMAGES = ('.jpg', '.jpeg', '.png')
_VIDEO_SUFFIX = re.compile(r'\.(mp4|webm|mkv|avi|mov)$', re.IGNORECASE)
# Kinetics clips are usually stored as YOUTUBEID_000010_000020.mp4 (start and end in seconds).
_TRIMMED = re.compile(r'^(.{11})_\d{6}_\d{6}$')


@dataclass(frozen=True)
class CocoImages:
    """Images and categories of a COCO annotation or ``image_info`` file.

    Attributes:
        source: The file.
        sizes: Width and height by image id.
        categories: Category name by id.
    """

    source: str
    sizes: dict[int, tuple[int, int]]
    categories: dict[int, str]


def read_coco_images(path: str | PathLike) -> CocoImages:
    """Read which images and categories a COCO file lists.

    Raises:
        ValueError: No COCO file, or one without images or categories.
    """
    content = parse_json(read_bytes(path), str(path))
    if not isinstance(content, dict) or not isinstance(content.get('images'), list):
        raise ValueError(
            f'{path}: no COCO list of images; expected image_info_test-dev2017.json or an '
            'annotation file, an object with "images" and "categories".'
        )
    try:
        sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
        categories = {item['id']: item['name'] for item in content.get('categories', [])}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: an image or category lacks what it needs, or holds another type ({error}).'
        ) from error
    if not sizes or not categories:
        raise ValueError(f'{path}: {len(sizes)} images and {len(categories)} categories.')
    if not all(map(is_integer, [*sizes, *categories, *itertools.chain(*sizes.values())])):
        raise ValueError(f'{path}: ids and sizes of images and ids of categories must be integers.')
    return CocoImages(str(path), sizes, categories)


def read_image_stems(path: str | PathLike) -> dict[str, tuple[int, int] | None]:
    """Names without suffix, and sizes, of the test images of a folder or a text file.

    Args:
        path: Folder of images, or a file with one name a line.

    Returns:
        Width and height by stem, in the order of the list; None where only the name is known.

    Raises:
        ValueError: Nothing there, a file that is no image, or a name listed twice.
    """
    path = Path(path)
    found: dict[str, tuple[int, int] | None] = {}
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in _IMAGES:
                found[file.stem] = _image_size(file)
    else:
        lines = [line.split() for line in _text(path).splitlines()]
        names = [Path(words[0]).stem for words in lines if words]
        found = dict.fromkeys(names)
        if len(found) < len(names):
            raise ValueError(f'{path}: {len(names) - len(found)} names are listed twice.')
    if not found:
        raise ValueError(f'{path}: no image names; expected a folder of images or a list of names.')
    return found


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: not a readable image ({error}).') from error


def video_id(name: str) -> str:
    """The id by which a benchmark knows a video.

    Args:
        name: File or folder name of the video, such as ``class/ID_000010_000020.mp4``.

    Returns:
        The name without folders, suffix and the times of a trimmed Kinetics clip.
    """
    stem = _VIDEO_SUFFIX.sub('', re.split(r'[/\\]', name.rstrip('/\\'))[-1])
    trimmed = _TRIMMED.match(stem)
    return trimmed.group(1) if trimmed else stem


def read_videos(path: str | PathLike) -> dict[str, str | None]:
    """Ids of the videos of a list, each with its label where the list has one.

    Understood are the csv files of Kinetics (a header with ``youtube_id``, perhaps ``label``), the
    JSON files of Kinetics (objects by id) and Something-Something (a list of objects with ``id``,
    perhaps ``template``), ``test-answers.csv`` (``id;template``), and the text lists of the
    toolboxes and of the official code (name first, label last, separated by spaces or commas).

    Returns:
        Label text (a name or a class index, as written) or None by id, in the list's order.

    Raises:
        ValueError: None of these, no entry, or an id twice.
    """
    text = _text(Path(path))
    if text.lstrip()[:1] in ('[', '{'):
        pairs = _json_videos(parse_json(text.encode(), str(path)), str(path))
    else:
        pairs = _text_videos(text, str(path))
    if not pairs:
        raise ValueError(f'{path}: lists no videos.')
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f'{path}: video {shown(twice)} is listed twice.')
    return found


def _json_videos(content: object, path: str) -> list[tuple[str, str | None]]:
    try:
        if isinstance(content, dict):
            pairs = [
                (name, entry.get('annotations', {}).get('label')) for name, entry in content.items()
            ]
        else:
            pairs = [(str(entry['id']), entry.get('template')) for entry in content]
        wrong = next((label for _, label in pairs if not isinstance(label, str | None)), None)
        if wrong is not None:
            raise TypeError(f'label {shown(wrong)} is no text')
        return pairs
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: no list of videos; expected objects by id (Kinetics) or a list of objects '
            f'with "id" (Something-Something); {error}.'
        ) from error


def _text_videos(text: str, path: str) -> list[tuple[str, str | None]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and 'youtube_id' in lines[0].split(','):
        try:
            return [
                (line['youtube_id'], line.get('label'))
                for line in csv.DictReader(io.StringIO(text))
            ]
        except csv.Error as error:
            raise ValueError(f'{path}: not a readable csv file ({error}).') from error
    return [(video_id(name), label) for name, label in map(_split_line, lines)]


def _split_line(line: str) -> tuple[str, str | None]:
    """Name and label of a line; a template after ``;`` may hold commas and spaces."""
    line = line.strip()
    if ';' in line:
        name, _, label = line.partition(';')
        return name, label
    words = line.split(',') if ',' in line else line.split()
    return words[0], words[-1] if len(words) > 1 else None


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path}: not UTF-8 text ({error.reason} at byte {error.start}).'
        ) from error
