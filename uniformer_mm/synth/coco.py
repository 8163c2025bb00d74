# SPDX-License-Identifier: Apache-2.0
"""COCO's annotation files, and its fields from boolean masks: polygons, run lengths, boxes.

COCO's coordinates put pixel ``i`` at ``[i, i + 1)``. A COCO polygon list is a union, so it cannot
say "hole"; a hole is joined to its outline by a bridge of zero width, as annotation tools do.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

_UPSAMPLING = 4
_TOLERANCE = 0.6
"""Largest distance in pixels between a polygon and the mask's outline."""

_MIN_PART_AREA = 6.0
"""Visible specks smaller than this (pixels) are left out of the polygons."""


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons of a boolean ``(height, width)`` mask: ``[[x0, y0, x1, y1, ...], ...]``."""
    large = np.repeat(np.repeat(mask.astype(np.uint8), _UPSAMPLING, 0), _UPSAMPLING, 1)
    contours, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for index, contour in enumerate(contours):
        if hierarchy[0, index, 3] >= 0:
            continue
        outline = _simplify(contour)
        if outline is None:
            continue
        hole = hierarchy[0, index, 2]
        while hole >= 0:
            inner = _simplify(contours[hole])
            if inner is not None:
                outline = _bridge(outline, inner)
            hole = hierarchy[0, hole, 0]
        polygons.append([round(float(value), 2) for value in outline.ravel()])
    return polygons


def _simplify(contour: np.ndarray) -> np.ndarray | None:
    """A contour of the upsampled mask as ``(points, 2)`` in pixels; None for a speck."""
    points = cv2.approxPolyDP(contour, _TOLERANCE * _UPSAMPLING, closed=True)[:, 0]
    if len(points) < 3 or cv2.contourArea(points) < _MIN_PART_AREA * _UPSAMPLING**2:
        return None
    return (points + 0.5) / _UPSAMPLING


def _bridge(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Joins a hole to its outline between their two nearest points."""
    distances = np.linalg.norm(outline[:, None] - hole[None], axis=2)
    i, j = np.unravel_index(np.argmin(distances), distances.shape)
    around_hole = np.concatenate([hole[j:], hole[: j + 1]])
    return np.concatenate([outline[: i + 1], around_hole, outline[i:]])


def to_run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths, column by column, beginning with background."""
    flat = mask.astype(np.uint8).ravel(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist()
    if flat[0]:
        counts.insert(0, 0)
    return {'counts': counts, 'size': list(mask.shape)}


def to_box(mask: np.ndarray) -> list[float]:
    """COCO box ``[x, y, width, height]`` around a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x0, y0 = int(columns[0]), int(rows[0])
    return [float(x0), float(y0), float(columns[-1] + 1 - x0), float(rows[-1] + 1 - y0)]


def coco_file(
    description: str, categories: list[dict[str, Any]], records: list[dict[str, Any]], first_id: int
) -> dict[str, Any]:
    """The content of a COCO annotation file.

    Args:
        description: For the ``info`` field.
        categories: The ``categories`` field.
        records: One dict per image, in order: ``file_name``, ``width``, ``height`` and
            ``annotations`` without ``id`` and ``image_id``.
        first_id: Id of the first image; annotations count from ten times that.

    Returns:
        The dict to write as JSON.
    """
    images, annotations = [], []
    for image_id, record in enumerate(records, first_id):
        size = {key: record[key] for key in ('file_name', 'width', 'height')}
        images.append({'id': image_id, 'license': 1, **size})
        for annotation in record['annotations']:
            annotation_id = 10 * first_id + len(annotations)
            annotations.append({'id': annotation_id, 'image_id': image_id, **annotation})
    return {
        'info': {'description': description, 'version': '1'},
        'licenses': [{'id': 1, 'name': 'Apache-2.0', 'url': ''}],
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }
