"""What is found must not depend on where arrays happen to lie in memory."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from geo_refdiff.align.features import gradients, orientation
from geo_refdiff.align.repeatable import repeatable_opencv


def placed(image: NDArray[np.float32], offset: int) -> NDArray[np.float32]:
    """A copy that begins `offset` bytes behind a multiple of 64."""
    room = np.empty(image.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    copy = room[start : start + image.nbytes].view(np.float32).reshape(image.shape)
    copy[...] = image
    return copy


def test_edges_are_the_same_to_the_bit_wherever_an_image_lies() -> None:
    image, known = np.random.default_rng(0).random((2, 96, 96), np.float32), np.ones((96, 96), bool)
    found = set()
    with repeatable_opencv():
        for offset, spare in itertools.product(range(0, 64, 4), (96, 1000, 96 * 96 * 4 + 16)):
            kept = np.empty(spare, np.uint8)  # moves what is allocated next
            bands = gradients(placed(image, offset), known, known)
            found.add(b"".join(np.asarray(part).tobytes() for part in bands[0]) + orientation(bands, known).tobytes())
            del kept
        lengths = {
            cv2.magnitude(placed(image[0], a), placed(image[1], b), placed(image[0], c)).tobytes()
            for a, b, c in itertools.product(range(0, 64, 16), repeat=3)
        }
    assert len(found) == len(lengths) == 1


def test_opencv_is_left_as_it_was() -> None:
    before = cv2.getNumThreads(), cv2.ipp.useIPP()
    with repeatable_opencv():
        assert cv2.getNumThreads() == 1
        assert not cv2.ipp.useIPP()
    assert (cv2.getNumThreads(), cv2.ipp.useIPP()) == before
