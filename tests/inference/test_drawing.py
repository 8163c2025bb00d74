# SPDX-License-Identifier: Apache-2.0
"""What is drawn: objects stay visible, labels do not cover each other, legends are complete."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from uniformer_mm.inference.drawing import (
    LEAST_SIDE,
    distinct_colors,
    draw_bars,
    draw_instances,
    draw_label_map,
    draw_skeletons,
    place_labels,
    side_by_side,
    stacked,
    titled,
)
from uniformer_mm.inference.results import Classification, Detections, LabelMap

RED, BLUE = (220, 0, 0), (0, 0, 220)


def noise(height: int = 600, width: int = 640) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def squares(*corners: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((len(corners), 600, 640), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return np.array(corners, dtype=float), masks


def test_an_object_stays_visible_under_any_number_of_masks() -> None:
    image = noise()
    boxes, masks = squares(*[(100, 100, 400, 400)] * 20)
    drawn = draw_instances(image, boxes, [''] * 20, [RED] * 20, masks)
    inside = (slice(150, 350), slice(150, 350))
    # 55 % of the image and 45 % of the colour, rounded.
    expected = 0.55 * image[inside] + 0.45 * np.array(RED)
    assert np.abs(drawn[inside] - expected).max() <= 0.5
    assert (drawn[420:, 420:] == image[420:, 420:]).all()


def test_the_most_certain_object_keeps_its_colour() -> None:
    boxes, masks = squares((100, 100, 400, 400), (200, 200, 500, 500))
    drawn = draw_instances(np.zeros_like(noise()), boxes, ['', ''], [RED, BLUE], masks)
    assert tuple(drawn[300, 300]) == (99, 0, 0)
    assert tuple(drawn[450, 450]) == (0, 0, 99)


def test_labels_do_not_cover_each_other() -> None:
    random = np.random.default_rng(1)
    corners = random.integers(0, 500, (30, 2))
    boxes = np.concatenate([corners, corners + random.integers(5, 100, (30, 2))], axis=1)
    sizes = [(int(w), 18) for w in random.integers(30, 120, 30)]
    covered = np.zeros((600, 640), dtype=int)
    for (x, y), (w, h) in zip(place_labels(boxes, sizes, 640, 600), sizes, strict=True):
        assert x >= 0 and y >= 0 and x + w <= 640 and y + h <= 600
        covered[y : y + h, x : x + w] += 1
    assert covered.max() == 1


def test_a_label_stands_above_its_box_where_there_is_room() -> None:
    assert place_labels(np.array([[50, 80, 90, 120]]), [(40, 18)], 640, 600) == [(50, 62)]
    assert place_labels(np.array([[50, 5, 90, 120]]), [(40, 18)], 640, 600) == [(50, 0)]


def test_small_images_grow_and_masks_with_them() -> None:
    image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((1, 60, 80), bool)
    mask[0, 20:40, 20:60] = True
    drawn = draw_instances(image, np.array([[20, 20, 60, 40]]), [''], [RED], mask)
    assert drawn.shape == (LEAST_SIDE * 60 // 80, LEAST_SIDE, 3)
    assert tuple(drawn[drawn.shape[0] // 2, LEAST_SIDE // 2]) == (99, 0, 0)


def test_a_label_map_with_its_legend() -> None:
    image = noise()
    labels = np.full((600, 640), 255)
    labels[:300], labels[300:450] = 1, 0
    colors = [RED, BLUE]
    drawn = draw_label_map(image, labels, ['one', 'two'], colors)
    np.testing.assert_allclose(
        drawn[:300, :640], 0.45 * image[:300] + 0.55 * np.array(BLUE), atol=0.51
    )
    assert (drawn[450:, :640] == image[450:]).all(), 'what has no class stays as it is'
    legend = drawn[:, 640:].reshape(-1, 3)
    # Largest first.
    places = [np.flatnonzero((legend == color).all(1)).mean() for color in (BLUE, RED)]
    assert places[0] < places[1]
    assert (
        draw_label_map(image, labels, ['one', 'two'], colors, legend=False).shape
    ) == image.shape


def test_a_legend_with_more_classes_than_room_says_so() -> None:
    labels = np.arange(150).repeat(4)[:, None].repeat(640, 1)
    drawn = draw_label_map(noise(), labels, [f'class {i}' for i in range(150)], [RED] * 150)
    assert drawn.shape[0] == 600


def test_skeletons_join_what_is_seen_only() -> None:
    image = np.zeros((600, 640, 3), np.uint8)
    points = np.array([[[100, 100], [300, 100], [300, 300]]])
    drawn = draw_skeletons(
        image, points, np.array([[True, True, False]]), [(0, 1), (1, 2)], [RED] * 3, [BLUE] * 2
    )
    assert tuple(drawn[100, 200]) == BLUE
    assert tuple(drawn[100, 100]) == RED
    assert not drawn[200:].any()


def test_a_keypoint_at_the_edge_is_drawn() -> None:
    drawn = draw_skeletons(
        np.zeros((600, 640, 3), np.uint8), np.array([[[0, 300], [100, 300]]]),
        np.ones((1, 2), bool), [(0, 1)], [RED] * 2, [BLUE],
    )  # fmt: skip
    assert tuple(drawn[300, 50]) == BLUE


def test_bars_are_as_long_as_the_probabilities() -> None:
    shares = np.array([0.2, 0.6, 0.2])
    drawn = draw_bars(noise(), shares, ['a', 'b', 'c'])[600:]
    blue = (drawn == (50, 110, 200)).all(-1).sum(1)
    lengths = [int(blue[i]) for i in np.flatnonzero(np.diff(blue, prepend=0) > 0)]
    assert lengths[0] / lengths[1] == pytest.approx(3, rel=0.03)


def test_the_true_class_is_marked() -> None:
    shares, green = np.array([0.5, 0.3, 0.2]), (40, 150, 70)
    drawn = draw_bars(noise(), shares, ['a', 'b', 'c'], truth=1)[600:]
    assert (drawn == green).all(-1).any()
    assert not (draw_bars(noise(), shares, ['a', 'b', 'c'], top=1, truth=1) == green).all(-1).any()


def test_sheets_keep_their_images() -> None:
    left, right = noise(60, 80), noise(40, 50)
    row = side_by_side([left, right], gap=10)
    assert (row[:60, :80] == left).all() and (row[:40, 90:140] == right).all()
    column = stacked([left, right], gap=10)
    assert (column[70:110, :50] == right).all()
    under = titled(left, 'a title that is much too long for eighty pixels', 14)
    assert (under[-60:] == left).all() and under.shape[1] == 80


def test_colours_differ() -> None:
    assert len(set(distinct_colors(80))) == 80


def test_saved_images_are_whole_or_absent(tmp_path) -> None:
    result = LabelMap(
        name='a.png', image=noise(), labels=np.zeros((600, 640), int), classes=['one', 'two']
    )
    assert (np.asarray(Image.open(result.save(tmp_path / 'new' / 'a.png'))) == result.draw()).all()
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['a.png']
    labels = np.asarray(Image.open(result.save_labels(tmp_path / 'labels.png')))
    assert (labels == result.labels).all() and labels.dtype == np.uint8
    with pytest.raises(ValueError, match=r"path='a.xyz': give a name that ends in"):
        result.save('a.xyz')


def test_objects_below_the_score_are_kept_but_not_drawn() -> None:
    result = Detections(
        name='a.png', image=np.zeros_like(noise()), boxes=np.array([[100.0, 100, 300, 300]]),
        scores=np.array([0.2]), labels=np.array([1]), classes=['one', 'two'],
    )  # fmt: skip
    assert not result.draw().any()
    assert result.to_dict()['annotations'][0]['bbox'] == [100, 100, 200, 200]
    result.drawn_score = 0.1
    assert result.draw().any()


def test_the_best_classes_come_first() -> None:
    result = Classification(
        name='a', image=noise(), probabilities=np.array([0.1, 0.7, 0.2]), classes=['a', 'b', 'c']
    )
    assert result.top(2) == [('b', 0.7), ('c', 0.2)]
    assert result.class_name == 'b'
