# SPDX-License-Identifier: Apache-2.0
"""Predictions on images: masks, boxes, label maps, skeletons, bars of probabilities.

The toolboxes' own visualizers write labels over each other, hide objects under their masks, put the
names of a label map into the map and draw skeletons of cut-out persons in the coordinates of the
cut. Results of all tasks are drawn here instead, predictions and annotations alike. Images are RGB,
uint8, (H, W, 3).
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

LEAST_SIDE = 560
"""Images whose long side is shorter are enlarged before anything is drawn on them, pixels."""

TRUTH_MARK = '✓'
_MASK_OPACITY = 0.45
_MAP_OPACITY = 0.55
_WHITE, _BLACK, _GREY = (255, 255, 255), (24, 24, 24), (150, 150, 150)


def distinct_colors(count: int) -> list[Color]:
    """``count`` colours that differ in hue, neighbours most of all."""
    golden = 0.618033988749895
    return [
        tuple(
            round(255 * part)
            for part in colorsys.hsv_to_rgb((0.02 + i * golden) % 1, 0.85, 1 - 0.25 * (i % 2))
        )
        for i in range(count)
    ]


def enlarged(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of an image, a small one made as large as labels need, and the factor."""
    factor = max(1.0, LEAST_SIDE / max(image.shape[:2]))
    if factor == 1:
        return np.array(image, order='C'), 1.0
    height, width = (round(side * factor) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), factor


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[str],
    colors: Sequence[Color],
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Objects with their box, outline and name; what is under a mask stays visible.

    Args:
        image: RGB image.
        boxes: Corners x0, y0, x1, y1 in pixels of ``image``, (N, 4).
        texts: A label for each object, the most certain first.
        colors: A colour for each object.
        masks: Boolean masks, (N, H, W).

    Returns:
        The drawn image, enlarged if ``image`` is small.
    """
    canvas, factor = enlarged(image)
    height, width = canvas.shape[:2]
    line = max(2, round(max(height, width) / 400))
    tinted = np.zeros((height, width), dtype=bool)
    for index in range(len(boxes)) if masks is not None else ():
        mask = masks[index].astype(np.uint8)
        if factor > 1:
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        # One tint for a pixel, however many masks hold it: the first is the most certain.
        inside, color = mask.astype(bool) & ~tinted, np.array(colors[index])
        tinted |= inside
        mixed = canvas[inside] * (1 - _MASK_OPACITY) + color * _MASK_OPACITY
        canvas[inside] = mixed.round().astype(np.uint8)
        outline, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, colors[index], line, cv2.LINE_AA)
    corners = (np.asarray(boxes, dtype=float).reshape(-1, 4) * factor).round().astype(int)
    for (x0, y0, x1, y1), color in zip(corners.tolist(), colors, strict=True):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, line, cv2.LINE_AA)
    return _with_labels(canvas, corners, texts, colors)


def place_labels(
    boxes: np.ndarray, sizes: Sequence[tuple[int, int]], width: int, height: int
) -> list[tuple[int, int]]:
    """Where labels go so that none covers another, as long as the image has room.

    Args:
        boxes: Corners x0, y0, x1, y1 of the objects, (N, 4), the most important first.
        sizes: Width and height of each label.
        width: Width of the image.
        height: Height of the image.

    Returns:
        The upper left corner of each label, inside the image.
    """
    taken = np.zeros((0, 4), dtype=int)
    for (x0, y0, x1, y1), (w, h) in zip(np.asarray(boxes).tolist(), sizes, strict=True):
        wishes = [(x0, y0 - h), (x0, y0), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1 - h)]
        # Then whatever is free, nearest to the first wish.
        ys, xs = np.mgrid[0 : max(height - h, 0) + 1 : h // 2, 0 : max(width - w, 0) + 1 : w // 2]
        others = np.stack([xs.ravel(), ys.ravel()], axis=1)
        others = others[np.argsort(np.abs(others - wishes[0]).sum(1), kind='stable')]
        places = np.concatenate([np.array(wishes, dtype=int), others])
        places = places.clip(0, (max(width - w, 0), max(height - h, 0)))
        left, top = places.T[:, :, None]
        hit = (left < taken[:, 2]) & (taken[:, 0] < left + w)
        hit &= (top < taken[:, 3]) & (taken[:, 1] < top + h)
        x, y = places[hit.any(1).argmin()]
        taken = np.concatenate([taken, [[x, y, x + w, y + h]]])
    return [(x, y) for x, y, _, _ in taken.tolist()]


def _with_labels(
    canvas: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colors: Sequence[Color]
) -> np.ndarray:
    height, width = canvas.shape[:2]
    font = _font(max(13, round(max(height, width) / 55)))
    sizes = [_text_size(text, font) for text in texts]
    page = Image.fromarray(canvas)
    pen = ImageDraw.Draw(page)
    places = place_labels(boxes, sizes, width, height)
    for (x, y), (w, h), text, color in zip(places, sizes, texts, colors, strict=True):
        pen.rectangle((x, y, x + w - 1, y + h - 1), fill=color)
        pen.text((x + w / 2, y + h / 2), text, font=font, fill=_ink(color), anchor='mm')
    return np.asarray(page)


def draw_label_map(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    colors: Sequence[Color],
    legend: bool = True,
) -> np.ndarray:
    """A label map over its image, with a legend of the classes that it holds.

    Args:
        image: RGB image.
        labels: Class of each pixel, (H, W); other numbers than classes' are left uncoloured.
        classes: Names.
        colors: A colour for each class.
        legend: Whether to add the legend, on the right, the largest class first.

    Returns:
        The drawn image, enlarged if ``image`` is small.
    """
    canvas, factor = enlarged(image)
    height, width = canvas.shape[:2]
    if factor > 1:
        labels = cv2.resize(
            labels.astype(np.int32).astype(np.float32), (width, height),
            interpolation=cv2.INTER_NEAREST,
        ).astype(np.int64)  # fmt: skip
    known = (labels >= 0) & (labels < len(classes))
    tint = np.asarray(colors, dtype=float).reshape(-1, 3)[np.where(known, labels, 0)]
    mixed = canvas * (1 - _MAP_OPACITY) + tint * _MAP_OPACITY
    canvas[known] = mixed[known].round().astype(np.uint8)
    if not legend:
        return canvas
    present, counts = np.unique(labels[known], return_counts=True)
    order = np.argsort(-counts)
    rows = [
        (f'{classes[i]}  {share:.0%}' if share >= 0.005 else f'{classes[i]}  <1%', colors[i])
        for i, share in zip(present[order], counts[order] / labels.size, strict=True)
    ]
    return np.concatenate([canvas, _legend(rows, height)], axis=1)


def _legend(rows: list[tuple[str, Color]], height: int) -> np.ndarray:
    size = max(13, round(height / 30))
    step = size + size // 2
    room = max(1, height // step)
    if len(rows) > room:
        rows = [*rows[: room - 1], (f'and {len(rows) - room + 1} more', _WHITE)]
    font = _font(size)
    widest = max((_text_size(text, font)[0] for text, _ in rows), default=0)
    page = Image.new('RGB', (widest + 2 * step, height), _WHITE)
    pen = ImageDraw.Draw(page)
    for index, (text, color) in enumerate(rows):
        top = index * step + step // 4
        pen.rectangle((step // 3, top, step // 3 + size, top + size), fill=tuple(color))
        pen.text(
            (step // 3 + size + step // 3, top + size / 2),
            text,
            font=font,
            fill=_BLACK,
            anchor='lm',
        )
    return np.asarray(page)


def draw_skeletons(
    image: np.ndarray,
    keypoints: np.ndarray,
    seen: np.ndarray,
    links: Sequence[tuple[int, int]],
    point_colors: Sequence[Color],
    link_colors: Sequence[Color],
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """Persons as skeletons.

    Args:
        image: RGB image.
        keypoints: x and y in pixels of ``image``, (N, K, 2).
        seen: Which of them are drawn, (N, K), boolean.
        links: Pairs of keypoints that are joined, where both are drawn.
        point_colors: A colour for each keypoint.
        link_colors: A colour for each link.
        boxes: Corners of each person's box, (N, 4).

    Returns:
        The drawn image, enlarged if ``image`` is small.
    """
    canvas, factor = enlarged(image)
    line = max(2, round(max(canvas.shape[:2]) / 250))
    points = ((np.asarray(keypoints, dtype=float) + 0.5) * factor).round().astype(int)
    if boxes is not None:
        for x0, y0, x1, y1 in (np.asarray(boxes) * factor).round().astype(int).tolist():
            cv2.rectangle(canvas, (x0, y0), (x1, y1), _WHITE, max(1, line // 2), cv2.LINE_AA)
    for person, visible in zip(points, seen, strict=True):
        for (a, b), color in zip(links, link_colors, strict=True):
            if visible[a] and visible[b]:
                cv2.line(canvas, person[a].tolist(), person[b].tolist(), color, line, cv2.LINE_AA)
        for point, shown, color in zip(person, visible, point_colors, strict=True):
            if shown:
                cv2.circle(canvas, point.tolist(), line + 2, _WHITE, -1, cv2.LINE_AA)
                cv2.circle(canvas, point.tolist(), line + 1, color, -1, cv2.LINE_AA)
    return canvas


def draw_bars(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    top: int = 5,
    truth: int | None = None,
) -> np.ndarray:
    """The most probable classes as bars below an image or a frame.

    Args:
        image: RGB image.
        probabilities: One for each class, (C,).
        classes: Names.
        top: How many bars.
        truth: The true class, which is drawn green and marked; the others are then grey.

    Returns:
        The image, enlarged if small, and the bars below it.
    """
    canvas, _ = enlarged(image)
    width = canvas.shape[1]
    size = max(13, round(max(canvas.shape[:2]) / 40))
    font, step = _font(size), size + size // 2
    best = np.argsort(-probabilities, kind='stable')[:top].tolist()
    page = Image.new('RGB', (width, step * len(best) + step // 2), _WHITE)
    pen = ImageDraw.Draw(page)
    names = width * 45 // 100
    for row, index in enumerate(best):
        middle = step // 4 + row * step + step / 2
        share = float(probabilities[index])
        right = index == truth
        color = (40, 150, 70) if right else _GREY if truth is not None else (50, 110, 200)
        name = f'{TRUTH_MARK} {classes[index]}' if right else classes[index]
        pen.text(
            (names - size // 2, middle), _shortened(name, font, names - size), font=font,
            fill=_BLACK, anchor='rm',
        )  # fmt: skip
        room = width - names - 4 * size
        pen.rectangle(
            (names, middle - size / 2, names + max(1, room * share), middle + size / 2), fill=color
        )
        pen.text(
            (names + room * share + size / 3, middle), f'{share:.1%}', font=font, fill=_BLACK,
            anchor='lm',
        )  # fmt: skip
    return np.concatenate([canvas, np.asarray(page)])


def titled(image: np.ndarray, title: str, size: int = 20) -> np.ndarray:
    """An image under a line of text, ``size`` pixels high."""
    width = image.shape[1]
    font = _font(size)
    page = Image.new('RGB', (width, size * 2), _WHITE)
    ImageDraw.Draw(page).text(
        (width / 2, size),
        _shortened(title, font, width - size),
        font=font,
        fill=_BLACK,
        anchor='mm',
    )
    return np.concatenate([np.asarray(page), image])


def side_by_side(images: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Images in a row, aligned at the top, on white."""
    height = max(image.shape[0] for image in images)
    parts = []
    for image in images:
        rest = ((0, height - image.shape[0]), (0, gap), (0, 0))
        parts.append(np.pad(image, rest, constant_values=255))
    return np.concatenate(parts, axis=1)[:, :-gap]


def stacked(images: Sequence[np.ndarray], gap: int = 24) -> np.ndarray:
    """Images below each other, aligned at the left, on white."""
    width = max(image.shape[1] for image in images)
    parts = [
        np.pad(image, ((0, gap), (0, width - image.shape[1]), (0, 0)), constant_values=255)
        for image in images
    ]
    return np.concatenate(parts)[:-gap]


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + '…') > width:
        text = text[:-1]
    return text + '…'


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    return round(font.getlength(text)) + 8, round(font.size * 1.35)


def _ink(color: Color) -> Color:
    red, green, blue = color
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib carries a font of Latin, Greek and Cyrillic letters; OpenCV has ASCII only.
    return ImageFont.truetype(Path(mpl.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'), size)
