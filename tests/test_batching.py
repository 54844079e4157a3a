from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuenc.batching import batches, bounded_batches
from gpuenc.frames import Frame, FrameFormat, FrameRef

SMALL = FrameFormat(2, 4, 1, 8, 8, False, "MONOCHROME2")  # 8 bytes
LARGE = FrameFormat(10, 10, 1, 16, 12, False, "MONOCHROME2")  # 200 bytes


def frame(index, fmt=SMALL):
    return Frame(FrameRef("test", index), fmt, np.zeros(fmt.frame_bytes, np.uint8))


@settings(deadline=None)
@given(st.lists(st.sampled_from([SMALL, LARGE])), st.integers(1, 7), st.integers(1, 500))
def test_no_frame_is_lost_reordered_or_mixed(formats, max_frames, max_bytes):
    frames = [frame(i, fmt) for i, fmt in enumerate(formats)]
    made = list(batches(frames, max_frames=max_frames, max_bytes=max_bytes))
    assert [f.ref.index for batch in made for f in batch] == list(range(len(formats)))
    for batch in made:
        assert batch
        assert len({f.format for f in batch}) == 1
        assert len(batch) <= max_frames
        assert len(batch) == 1 or sum(f.format.frame_bytes for f in batch) <= max_bytes


@settings(deadline=None)
@given(st.lists(st.sampled_from([SMALL, LARGE]), min_size=2), st.integers(1, 7), st.integers(1, 500))
def test_batches_are_not_smaller_than_they_need_to_be(formats, max_frames, max_bytes):
    frames = [frame(i, fmt) for i, fmt in enumerate(formats)]
    made = list(batches(frames, max_frames=max_frames, max_bytes=max_bytes))
    for batch, following in pairwise(made):
        size = sum(f.format.frame_bytes for f in batch) + following[0].format.frame_bytes
        assert len(batch) == max_frames or size > max_bytes or following[0].format != batch[0].format


def test_a_full_batch_is_yielded_before_the_next_frame_is_read():
    read = []

    def source():
        for i in range(10):
            read.append(i)
            yield frame(i)

    made = batches(source(), max_frames=3, max_bytes=10_000)
    next(made)
    assert read == [0, 1, 2]


@pytest.mark.parametrize("limits", [{"max_frames": 0, "max_bytes": 1}, {"max_frames": 1, "max_bytes": 0}])
def test_limits_that_nothing_fits_are_refused(limits):
    with pytest.raises(ValueError, match="at least 1"):
        next(batches([frame(0)], **limits))


def test_bounds_may_change_from_batch_to_batch_and_are_asked_once_for_each():
    bounds = iter([(3, 1000), (1, 1000), (5, 16), (5, 1000)])
    made = list(bounded_batches([frame(i) for i in range(10)], lambda: next(bounds)))
    assert [len(batch) for batch in made] == [3, 1, 2, 4]
    assert next(bounds, None) is None
