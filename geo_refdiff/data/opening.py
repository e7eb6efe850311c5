"""Opens any source of pairs: an index, or a folder in the published layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from geo_refdiff.classes import CLASSES
from geo_refdiff.data.dataset import PairDataset, Problems, check_on_error
from geo_refdiff.data.index import IndexRow, check_names, is_in, is_index, read_index
from geo_refdiff.data.indexed import BUDGET, IndexDataset, Resident, Tell
from geo_refdiff.data.label_cache import cache_path
from geo_refdiff.data.pair_files import ReadOptions
from geo_refdiff.data.refsr import ClassMap, Labels, RefSRDataset, is_refsr
from geo_refdiff.errors import InputError, OptionError

_WHAT = "is no index (.csv, .parquet, .gpkg) and no folder with HR_... and Ref; give one of these"
ROOT_VARIABLE = "GEO_REFDIFF_DATA"


class OpenedDataset(PairDataset, Protocol):
    """What `open_dataset` gives: pairs, and what was left out of them."""

    @property
    def problems(self) -> Problems: ...


def open_dataset(
    source: str | Path,
    *,
    root: str | Path | None = None,
    bands: Sequence[str] = (),
    classes: Sequence[str] = CLASSES,
    split: str | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    resident: Resident = "auto",
    budget: int = BUDGET,
    on_error: str = "skip",
    pseudo_classes: bool = True,
    pseudo_change: bool = False,
    match: bool = True,
    class_map: ClassMap = None,
    labels: Labels = "auto",
    clip: bool = True,
    tell: Tell | None = None,
) -> OpenedDataset:
    """Open a data set of ordered pairs of dates.

    Args:
        source: an index file (.csv, .parquet, .geoparquet, .gpkg), or a folder in the layout of SECOND and CNAM-CD (see
            `refsr`).
        root: folder that the paths of an index are relative to. Default: the index file's folder if they are found
            there, else the environment variable GEO_REFDIFF_DATA.
        bands: names of the bands wanted, in this order; default: those of the first file.
        classes: names of the classes that the masks of an index hold.
        split: take the pairs of this split alone; of a folder train is taken if none is given.
        only, exclude: places, or parts of their names, to take alone or to leave out.
        resident: hold the pixels in memory; "auto": if they take no more than `budget` bytes.
        on_error: "skip" leaves out pairs that are missing or unreadable (see `problems`), "stop" raises.
        pseudo_classes: land cover of the new date by rules where none is given and red, green, blue, nir are read.
        pseudo_change: change by rules where no mask is given; else such a mask is 255, unknown.
        match: move the reference onto the new date and fit its radiometry to it.
        class_map: class names of a folder's table -> index in CLASSES, or "own" to keep its classes.
        labels: which labels of a folder are read: "colour", "grey" or "auto".
        clip: values beyond an index's low and high become 0 and 255.
        tell: takes lines about the progress where labels by rules are made. With `pseudo_change`, and pixels in memory,
            they are kept in INDEX.labels.npz.

    Raises:
        InputError: the source cannot be read, or no pair of it can be used.
        OptionError: an option that makes no sense.
    """
    skip = check_on_error(on_error)
    path = Path(source)
    if is_refsr(path):
        _check_bands(path, bands)
        return RefSRDataset(path, split, class_map, labels, match, resident, budget, skip)
    if not is_index(path):
        raise InputError(f"{path}: {_WHAT}")
    rows = _chosen(read_index(path), path, split, only, exclude)
    reading = ReadOptions(tuple(bands), tuple(classes), pseudo_classes, pseudo_change, match, clip)
    return IndexDataset(
        rows, data_root(path, [row.new for row in rows], root), reading, resident, budget, skip, cache_path(path), tell
    )


def _check_bands(path: Path, bands: Sequence[str]) -> None:
    if bands and tuple(bands) != RefSRDataset.bands:
        raise OptionError(f"{path}: holds red, green, blue, not {', '.join(bands)}; ask for no others")


def _chosen(
    rows: list[IndexRow], path: Path, split: str | None, only: Sequence[str], exclude: Sequence[str]
) -> list[IndexRow]:
    places = {row.place for row in rows}
    check_names("only", only, places)
    check_names("exclude", exclude, places)
    splits = sorted({row.split for row in rows})
    if split is not None and split not in splits:
        raise OptionError(f"{path}: has no split '{split}'; it has {', '.join(s or '(none)' for s in splits)}")
    rows = [row for row in rows if split is None or row.split == split]
    rows = [row for row in rows if (not only or is_in(row.place, only)) and not is_in(row.place, exclude)]
    if not rows:
        raise InputError(f"{path}: no pair is left after split, only and exclude; ask for more")
    return rows


def data_root(path: Path, files: Sequence[str], root: str | Path | None) -> Path:
    """The folder that the paths of an index are relative to.

    Args:
        path: of the index.
        files: some of its paths.
        root: as the user named it; None: the index file's folder if any of the first files is found there, else
            the environment variable GEO_REFDIFF_DATA.

    Raises:
        InputError: the user named no folder.
    """
    if root is not None:
        if not Path(root).is_dir():
            raise InputError(f"{root}: no such folder; give the data root of {path.name}")
        return Path(root)
    beside, variable = path.absolute().parent, os.environ.get(ROOT_VARIABLE)
    if variable and not any((beside / file).exists() for file in files[:8]):
        return Path(variable)
    return beside
