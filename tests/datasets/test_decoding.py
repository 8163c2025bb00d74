# SPDX-License-Identifier: Apache-2.0
"""Decoding each frame once gives what mmaction2's own transform gives."""

from __future__ import annotations

import numpy as np
import pytest

from uniformer_mm.datasets.video import DecordDecodeOnce, LinspaceSampleFrames

from ..conftest import shared_dir

# Frames of a clip, interval, views: with a step back between views on ten seconds but in the first.
VIEWS = [(16, 4, 4), (16, 4, 5), (16, 8, 4), (32, 4, 4)]


@pytest.mark.parametrize('views', VIEWS)
@pytest.mark.parametrize('name', ['ta_chi.mp4', 'SOX5yA1l24A.mp4', 'mmaction2_demo.mp4'])
def test_frames_are_mmaction2_s(name: str, views: tuple[int, int, int]) -> None:
    transforms = pytest.importorskip(
        'mmaction.datasets.transforms', reason='mmaction2 is not installed; make setup installs it'
    )
    clip_len, interval, num_clips = views
    path = shared_dir('data', 'clips', 'videos', name)
    opened = transforms.DecordInit()
    sample = LinspaceSampleFrames(clip_len, interval, num_clips, test_mode=True)
    found = [
        decode(sample(opened(dict(filename=str(path), start_index=0))))
        for decode in (DecordDecodeOnce(), transforms.DecordDecode())
    ]
    ours, theirs = found
    np.testing.assert_array_equal(np.stack(ours.pop('imgs')), np.stack(theirs.pop('imgs')))
    np.testing.assert_array_equal(ours.pop('frame_inds'), theirs.pop('frame_inds'))
    assert ours == theirs


class Reader:
    """A video whose frames hold their number; keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked = []

    def get_batch(self, indices: np.ndarray) -> Reader:
        self.asked.append(list(indices))
        return self

    def asnumpy(self) -> np.ndarray:
        return np.stack([np.full((2, 3, 3), index, np.uint8) for index in self.asked[-1]])


def test_frames_are_asked_for_once_and_in_order() -> None:
    reader = Reader()
    indices = np.array([4, 6, 8, 5, 6, 7, 0, 0, 1])
    results = DecordDecodeOnce()(dict(video_reader=reader, frame_inds=indices))
    assert reader.asked == [[0, 1, 4, 5, 6, 7, 8]]
    assert [frame[0, 0, 0] for frame in results['imgs']] == indices.tolist()
    assert results['img_shape'] == results['original_shape'] == (2, 3)
    assert results['video_reader'] is None


def test_a_frame_of_two_views_is_two_arrays() -> None:
    """mmcv flips in place."""
    results = DecordDecodeOnce()(dict(video_reader=Reader(), frame_inds=np.array([1, 2, 2, 3])))
    results['imgs'][1][:] = 9
    assert [frame[0, 0, 0] for frame in results['imgs']] == [1, 9, 2, 3]
