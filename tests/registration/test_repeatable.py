"""What is found must not depend on where arrays happen to lie in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from geo_refdiff.registration import correlation
from geo_refdiff.registration.correlation import weighted_peaks
from geo_refdiff.registration.features import gradients, orientation
from geo_refdiff.registration.field import fit_field
from geo_refdiff.registration.rasters import repeatable_opencv
from geo_refdiff.registration.register import register_view
from geo_refdiff.registration.view import View

MakePair = Callable[..., View]


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


def test_peaks_and_searches_are_the_same_to_the_bit_wherever_windows_lie() -> None:
    rng = np.random.default_rng(1)
    first, second, weight = rng.standard_normal((3, 12, 64, 64)).astype(np.float32)
    found = set()
    for a, b in itertools.product(range(0, 64, 12), repeat=2):
        one, other = placed(first, a), placed(second, b)
        peaks = weighted_peaks(one.astype(np.complex64), other.astype(np.complex64), np.abs(placed(weight, a)), 4)
        found.add((tuple(peaks), tuple(correlation.search_shifts(one, other, placed(weight, b) > -1, 4))))
    assert len(found) == 1


def test_a_field_is_the_same_to_the_bit_wherever_measurements_lie() -> None:
    rng = np.random.default_rng(2)
    points, shifts, sigma = rng.uniform(0, 512, (60, 2)), rng.standard_normal((60, 2)), np.full(60, 0.1)
    nodes = np.linspace(0, 512, 13)
    found = set()
    for spare in range(0, 4096, 264):
        kept = np.empty(spare, np.uint8)
        smooth = fit_field(points.copy(), shifts.copy(), sigma.copy(), nodes, nodes)
        found.add((str(smooth.displacement), smooth.gain, smooth.sigma.tobytes()))
        del kept
    assert len(found) == 1


def test_a_registration_is_the_same_to_the_bit_wherever_a_view_lies(pair: MakePair) -> None:
    view = pair(128, (0.6, -0.4), nodata=0.1)
    with repeatable_opencv():
        found = {
            register_view(replace(view, scene=placed(view.scene, a), observed=placed(view.observed, b)), "global").sites
            for a, b in ((0, 0), (4, 20), (36, 8), (60, 52))
        }
    assert len(found) == 1
    assert len(next(iter(found))) == 9


def test_opencv_is_left_as_it_was() -> None:
    before = cv2.getNumThreads(), cv2.ipp.useIPP()
    with repeatable_opencv():
        assert cv2.getNumThreads() == 1
        assert not cv2.ipp.useIPP()
    assert (cv2.getNumThreads(), cv2.ipp.useIPP()) == before
