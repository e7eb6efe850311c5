"""Pseudo-labels where none exist: rough land cover of one date, and change between two dates, by rules on the bands.

The rules were tuned on hand-labelled points of aerial images of 0.6 m; docs/data.md says how well they do.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geo_refdiff.classes import BARE, BUILT, CLASSES, LOW, NO_CHANGE, TREE, WATER
from geo_refdiff.errors import BusyError, GeoRefDiffError, OutputError
from geo_refdiff.raster.files import held, write_bytes_atomic

VERSION = 3
"""Of the rules, and of what else is made of the files' pixels: of all that the fingerprint of an index rests on."""

COVER_REACH = 40
"""Pixels around a pixel on which its class may depend."""

NEEDED_BANDS = ("red", "green", "blue", "nir")

_MIN_GREY = 0.03
_SLOPE, _OFFSET = (0.8, 1.25), (-45.0, 15.0)
_DEFAULT_NIR = (0.95, -5.0)
_DARK_SHARE, _DARKEST_LIGHT = 0.1, 75.0
_TREE_BRIGHTNESS = 100

CHANGE_REACH = 48
"""Pixels around a pixel on which its change label may depend, in addition to `COVER_REACH`."""

MIN_AREA = 32
"""Smaller changes are left out, pixels."""

_AROUND = 5
_FLOOR = 18.0
_FLOOR_WITHIN_GROUP = 30.0
_FLOOR_OF_CONTENT = 45.0
_MORE_EDGES, _TIMES_EDGES = 0.3, 2.5
_GROUPS = {WATER: 1, BARE: 2, BUILT: 2, LOW: 3, TREE: 3}
"""Classes that the rules often confuse form a group."""

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tone:
    """Properties of a date as a whole, because aerial images are stretched differently each time.

    Attributes:
        slope, offset: grey surfaces (concrete, asphalt) show nir ~ slope * red + offset, DN of 0..255.
        dark: brightness (mean of red, green, blue, DN) below which a pixel counts as shadow.
    """

    slope: float
    offset: float
    dark: float


def measure_tone(views: Sequence[U8]) -> Tone:
    """Measure the tone of a date on samples of its valid pixels, each (4, ...) uint8 red, green, blue, nir."""
    pixels = np.concatenate([view.reshape(4, -1)[:, :: max(1, view[0].size // 65_536)] for view in views], axis=1)
    if pixels.size == 0:
        return Tone(*_DEFAULT_NIR, 0.0)
    red, green, blue, nir = pixels.astype(np.float32)
    brightness = (red + green + blue) / 3.0
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = (spread < 0.2 * brightness) & (brightness > 60) & (brightness < 245) & (nir < 1.35 * red)
    low, high = (float(q) for q in np.quantile(brightness, (0.005, 0.995)))
    slope, offset = _grey_line(red[grey], nir[grey]) if grey.mean() > _MIN_GREY else _DEFAULT_NIR
    return Tone(slope, offset, min(low + _DARK_SHARE * (high - low), _DARKEST_LIGHT))


def _grey_line(red: F32, nir: F32) -> tuple[float, float]:
    """Slope and offset of nir over red, through the medians of the darkest and brightest 30 % of the range."""
    low, high = (float(q) for q in np.quantile(red, (0.05, 0.95)))
    dark, bright = red <= low + 0.3 * (high - low), red >= high - 0.3 * (high - low)
    run = float(np.median(red[bright]) - np.median(red[dark]))
    rise = float(np.median(nir[bright]) - np.median(nir[dark]))
    slope = float(np.clip(rise / run, *_SLOPE)) if run > 30 else _DEFAULT_NIR[0]
    return slope, float(np.clip(np.median(nir - np.float32(slope) * red), *_OFFSET))


class _Features(NamedTuple):
    """Image features for the rules, each (H, W) float32."""

    ndvi: F32
    ndwi: F32
    brightness: F32
    warmth: F32
    roughness: F32
    edges: F32


def _features(image: U8, tone: Tone) -> _Features:
    red, green, blue = (_smooth(band.astype(np.float32)) for band in image[:3])
    levelled = np.maximum((image[3] - np.float32(tone.offset)) / np.float32(tone.slope), np.float32(0.0))
    nir = _smooth(levelled)
    brightness = (red + green + blue) / np.float32(3.0)
    mean = ndimage.uniform_filter(levelled, 7)
    rough = np.sqrt(np.maximum(ndimage.uniform_filter(levelled**2, 7) - mean**2, 0.0))
    return _Features(
        ndvi=(nir - red) / np.maximum(nir + red, 1.0),
        ndwi=(green - nir) / np.maximum(green + nir, 1.0),
        brightness=brightness,
        warmth=(red - blue) / np.maximum(brightness, 1.0),
        roughness=ndimage.minimum_filter(rough, 5),
        edges=edge_share(brightness, 31),
    )


def land_cover(image: U8, tone: Tone | None = None) -> U8:
    """Rough land cover of one date from red, green, blue and near infrared.

    Rules, in order (later ones take precedence): built-up; bare ground where it is warm (red above blue), not dark and
    has few edges around; vegetation by NDVI (Rouse 1974) and not bright, trees where near infrared is rough; water
    by NDWI (McFeeters 1996), wide, or bright and blue (pools); shadow takes the class around it, shaded
    vegetation is tree; then majorities.

    Args:
        image: (4, H, W) uint8 red, green, blue, nir.
        tone: of the date; None = measured on this image.

    Returns:
        (H, W) uint8: 1 water, 2 bare ground, 3 low vegetation, 4 tree, 5 built-up.
    """
    tone = tone or measure_tone([image])
    features = _features(image, tone)
    classes = np.full(image.shape[1:], BUILT, np.uint8)
    warm = (features.warmth > 0.054) & (features.ndvi > -0.016)
    classes[warm & (features.brightness > 100) & (features.edges < 0.3)] = BARE
    shade = features.brightness < tone.dark
    green = (features.ndvi > np.where(shade, 0.35, 0.2)) & (features.brightness < 165)
    classes[green] = LOW
    rough = green & (((features.roughness > 4.5) & (features.brightness < _TREE_BRIGHTNESS)) | shade)
    classes[green & (2.0 * _share(rough, 11) > _share(green, 11))] = TREE
    wet = (features.ndwi > 0.3) & (features.brightness < 130)
    black = _smooth(image[3].astype(np.float32)) < 30.0
    water = morphological_opening(wet & black, 7) | morphological_opening(wet, 25)  # narrow, it could be a road
    water |= morphological_opening(
        (features.ndwi > 0.25) & (features.warmth < -0.2) & (features.brightness > tone.dark + 25), 4
    )
    classes[water] = WATER
    shade &= ~green & ~water
    if shade.any():
        around, votes = _most(classes, ~shade, 15)
        classes = np.where(shade & (votes > 0.02), around, classes)
    return _most(classes, None, 5)[0]


def _most(classes: U8, counted: Mask | None, side: int) -> tuple[U8, F32]:
    """The most frequent class of the counted pixels in a square around each pixel, and its share of the square."""
    best = np.full(classes.shape, BUILT, np.uint8)
    share = np.zeros(classes.shape, np.float32)
    for index in np.unique(classes):
        votes = _share(classes == index if counted is None else (classes == index) & counted, side)
        more = votes > share
        best[more] = index
        share[more] = votes[more]
    return best, share


def edge_share(brightness: F32, side: int) -> F32:
    """Share of the square around each pixel where brightness (H, W), DN, changes by more than 8 % per pixel."""
    steps = np.hypot(ndimage.sobel(brightness, 0), ndimage.sobel(brightness, 1)) / 8.0
    return _share(steps > 0.08 * np.maximum(brightness, 30.0), side)


def shaded(image: U8, tone: Tone) -> Mask:
    """Shadow, grown by one pixel: image (4, H, W) uint8 -> (H, W) bool."""
    brightness = _smooth(image[:3].mean(axis=0, dtype=np.float32))
    return np.asarray(ndimage.maximum_filter(brightness < tone.dark, 3))


def _smooth(band: F32) -> F32:
    smooth: F32 = ndimage.uniform_filter(band, 3)
    return smooth


def _share(mask: Mask, side: int) -> F32:
    """Share of True pixels in the square around each pixel."""
    share: F32 = ndimage.uniform_filter(mask.astype(np.float32), side)
    return share


def morphological_opening(mask: Mask, side: int) -> Mask:
    """Morphological opening by a square of `side` pixels."""
    eroded = ndimage.minimum_filter(mask, side)
    return np.asarray(ndimage.maximum_filter(eroded, side, origin=-1 if side % 2 == 0 else 0))


def change_mask(new: U8, ref: U8, new_classes: U8, ref_classes: U8, tone: Tone | None = None) -> U8:
    """Change between two registered, radiometrically matched dates.

    A pixel has changed where all of this holds:

    - Its class now was nowhere in the 5 x 5 pixels around it before, nor its class before there now; and the pixels
      differ by at least 18 DN, by 30 DN where the two classes are often confused (bare ground and built-up, low
      vegetation and tree). Or the pixels differ by 45 DN, whatever the classes. Or bare ground and built-up have
      edges in 2.5 times, and in 30 % more, of the 21 x 21 pixels around at one of the dates: building sites.
    - Differences are those to the range of values in 5 x 5 pixels of the other date, both ways, so that a shift of
      up to 2 pixels and the lean of buildings do not count. They are absolute, so that a large change cannot hide.
    - Neither date is in shadow there (dark water is no shadow).
    - The change contains a square of 4 pixels and has at least 32 pixels.

    Args:
        new, ref: (4, H, W) uint8 red, green, blue, nir, registered and in one radiometry.
        new_classes, ref_classes: (H, W) uint8, 1..5, 0 = not classified.
        tone: of the new date; None = measured on `new`.

    Returns:
        (H, W) uint8: 0 no change, else the class now.
    """
    tone = tone or measure_tone([new])
    step = np.minimum(_beyond(_views(new), _views(ref)), _beyond(_views(ref), _views(new)))
    differ = _absent(new_classes, ref_classes) & _absent(ref_classes, new_classes)
    groups = np.zeros(len(CLASSES), np.uint8)
    groups[list(_GROUPS)] = list(_GROUPS.values())
    floor = np.where(groups[new_classes] == groups[ref_classes], _FLOOR_WITHIN_GROUP, _FLOOR)
    classified = (new_classes != NO_CHANGE) & (ref_classes != NO_CHANGE)
    ground = (groups[new_classes] == _GROUPS[BUILT]) & (groups[ref_classes] == _GROUPS[BUILT])
    changed = classified & ((differ & (step > floor)) | (step > _FLOOR_OF_CONTENT) | (ground & _built_over(new, ref)))
    changed &= ~(shaded(new, tone) & (new_classes != WATER) | shaded(ref, tone) & (ref_classes != WATER))
    changed = morphological_opening(changed, 4)
    labels, _ = ndimage.label(changed, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= MIN_AREA
    large[0] = False
    return np.where(large[labels], new_classes, NO_CHANGE).astype(np.uint8)


def _built_over(new: U8, ref: U8) -> Mask:
    """Where one date has far more edges in the neighbourhood than the other."""
    edges = [
        edge_share(ndimage.uniform_filter(image[:3].mean(axis=0, dtype=np.float32), 3), 21) for image in (new, ref)
    ]
    more, less = np.maximum(*edges), np.minimum(*edges)
    return np.asarray((more - less > _MORE_EDGES) & (more > _TIMES_EDGES * less))


def _views(image: U8) -> F32:
    """(3, H, W) float32: brightness, near infrared, red above blue; smoothed over 3 x 3 pixels."""
    red, green, blue, nir = image.astype(np.float32)
    views = np.stack([(red + green + blue) / 3.0, nir, red - blue])
    smooth: F32 = ndimage.uniform_filter(views, (0, 3, 3))
    return smooth


def _beyond(values: F32, others: F32) -> F32:
    """Distance of values to the range of the other date in their neighbourhood, the largest of all views; (H, W)."""
    size = (1, _AROUND, _AROUND)
    above = values - ndimage.maximum_filter(others, size)
    below = ndimage.minimum_filter(others, size) - values
    beyond: F32 = np.maximum(above, below).max(axis=0)
    return beyond


def _absent(classes: U8, others: U8) -> Mask:
    """Where a pixel's class does not occur in its neighbourhood at the other date."""
    absent: NDArray[np.bool_] = np.ones(classes.shape, np.bool_)
    for index in np.unique(classes):
        here = classes == index
        absent[here] = ~ndimage.maximum_filter(others == index, _AROUND)[here]
    return absent


Labels = NDArray[np.uint8]
T = TypeVar("T")
_AGAIN = 0.5
"""Seconds between two looks whether another process is done."""


def content_key(kind: str, *arrays: NDArray[Any]) -> str:
    """What identifies a label: its kind, the arrays that it is made of, and the version of the rules."""
    digest = hashlib.blake2b(f"{VERSION} {kind}".encode(), digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class LabelCache:
    """Labels (h, w) uint8 by key in one file, `INDEX.labels.npz`; it may be deleted at any time.

    Args:
        index: the index file.
    """

    def __init__(self, index: Path) -> None:
        self.path = index.with_name(f"{index.name}.labels.npz")

    def read(self) -> dict[str, Labels]:
        """All labels; none where the file is missing or damaged."""
        try:
            with np.load(io.BytesIO(self.path.read_bytes())) as file:
                keys, shapes, flat = file["keys"], file["shapes"], file["labels"]
            ends = np.cumsum(shapes.prod(axis=1))
            if not len(keys) or len(keys) != len(shapes) or len(flat) != ends[-1]:
                return {}
            parts = np.split(flat, ends[:-1])
            return {str(key): part.reshape(shape) for key, part, shape in zip(keys, parts, shapes, strict=True)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}

    def write(self, labels: Mapping[str, Labels]) -> bool:
        """Keep these labels and no others; whether that was possible: a data set may be on a read-only disk."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            keys=np.array(list(labels)),
            shapes=np.array([part.shape for part in labels.values()]).reshape(-1, 2),
            labels=np.concatenate([part.ravel() for part in labels.values()] or [np.zeros(0, np.uint8)]),
        )
        try:
            write_bytes_atomic(self.path, stream.getbuffer())
        except OutputError:
            return False
        return True

    @contextmanager
    def exclusive(self, log: Callable[[str], None]) -> Iterator[None]:
        """Make labels while no other process does; waits for one that does. Without a lock where none can be made.

        Args:
            log: takes the line that another process is waited for.
        """
        lock, locked, waiting = self.path.with_suffix(".lock"), False, False
        with ExitStack() as stack:
            while not locked:
                try:
                    stack.enter_context(held(lock, str(lock), "wait for it"))
                    locked = True
                except BusyError:
                    if not waiting:
                        log(f"waiting for the labels by rules that another process makes ({self.path})")
                    waiting = True
                    time.sleep(_AGAIN)
                except OutputError:
                    break
            try:
                yield
            finally:
                if locked:
                    with suppress(OSError):
                        lock.unlink()


class LabelStore(ExitStack):
    """Labels by key, those of a cache among them if there is one; what was made goes there when it closes.

    Args:
        cache: None: all labels are made.
        log: takes lines about the progress.
    """

    def __init__(self, cache: LabelCache | None, log: Callable[[str], None]) -> None:
        super().__init__()
        self._cache, self._log, self._locked = cache, log, False
        self._labels = {} if cache is None else cache.read()
        self._made: dict[str, Labels] = {}

    def labels(
        self,
        items: Sequence[T],
        key: Callable[[T], str],
        make: Callable[[Sequence[T]], list[Labels | GeoRefDiffError]],
    ) -> list[Labels | GeoRefDiffError]:
        """The labels of items; those that are missing are made, by one process at a time.

        Args:
            items: what they are labels of.
            key: of a label.
            make: labels of items, or errors.
        """
        if self._cache is None:
            return make(items)
        keys = [key(item) for item in items]
        if not self._locked and not self._labels.keys() >= set(keys):
            self.enter_context(self._cache.exclusive(self._log))
            self.callback(self._write, self._cache)
            self._locked, self._labels = True, self._cache.read()  # another process may have made them meanwhile
        missing = [n for n, name in enumerate(keys) if name not in self._labels]
        made = dict(zip(missing, make([items[n] for n in missing]), strict=True))
        self._made |= {keys[n]: label for n, label in made.items() if not isinstance(label, GeoRefDiffError)}
        return [made[n] if n in made else self._labels[name] for n, name in enumerate(keys)]

    def _write(self, cache: LabelCache) -> None:
        if self._made and cache.write(self._labels | self._made):
            self._log(f"labels by rules are kept in {cache.path}")
