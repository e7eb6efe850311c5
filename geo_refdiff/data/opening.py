"""Opens any source of pairs: an index, or a folder in the published layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from geo_refdiff.data.dataset import PairDataset, Problems
from geo_refdiff.data.index import IndexRow, chosen_places, is_index, read_index
from geo_refdiff.data.indexed import IndexDataset, Log
from geo_refdiff.data.labels import LabelCache
from geo_refdiff.data.published import PublishedDataset, is_published
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import DatasetOptions, fields_of, takes_options

_WHAT = (
    "is no index (.csv, .parquet, .gpkg) and no folder of SECOND (im1, im2), CNAM-CD (A, B, label) or their repacked "
    "form (HR_..., Ref); give one of these"
)
ROOT_VARIABLE = "GEO_REFDIFF_DATA"


class OpenedDataset(PairDataset, Protocol):
    """What `open_dataset` gives: pairs, and what was left out of them."""

    @property
    def problems(self) -> Problems: ...


@takes_options(fields_of(DatasetOptions))
def open_dataset(source: str | Path, *, log: Log | None = None, **options: Any) -> OpenedDataset:
    """Open a data set of ordered pairs of dates.

    Args:
        source: an index file (.csv, .parquet, .geoparquet, .gpkg), or a folder as SECOND and CNAM-CD are published (see
            `published`).
        log: takes lines about the progress where labels by rules are made. With `pseudo_change`, and pixels in memory,
            they are kept in INDEX.labels.npz.

    Raises:
        InputError: the source cannot be read, or no pair of it can be used.
        OptionError: an option that makes no sense.
    """
    chosen = DatasetOptions(**options)
    path = Path(source)
    if is_published(path):
        _check_bands(path, chosen.bands)
        return PublishedDataset(path, chosen)
    if not is_index(path):
        raise InputError(f"{path}: {_WHAT}")
    rows = _chosen(read_index(path), path, chosen)
    root = data_root(path, [row.new for row in rows], chosen.root)
    return IndexDataset(rows, root, chosen, LabelCache(path), log)


def _check_bands(path: Path, bands: Sequence[str]) -> None:
    if bands and tuple(bands) != PublishedDataset.bands:
        raise OptionError(f"{path}: holds red, green, blue, not {', '.join(bands)}; ask for no others")


def _chosen(rows: list[IndexRow], path: Path, options: DatasetOptions) -> list[IndexRow]:
    split, places = options.split, chosen_places((row.place for row in rows), options.only, options.exclude)
    splits = sorted({row.split for row in rows})
    if split is not None and split not in splits:
        raise OptionError(f"{path}: has no split '{split}'; it has {', '.join(s or '(none)' for s in splits)}")
    rows = [row for row in rows if split in (None, row.split) and row.place in places]
    if not rows:
        raise InputError(f"{path}: no pair remains after split, only and exclude; ask for more")
    return rows


def data_root(path: Path, files: Sequence[str], root: str | Path | None) -> Path:
    """The folder that the paths of an index are relative to.

    Args:
        path: of the index.
        files: some of its paths.
        root: as the user named it; None: the index file's folder if any of the first files is there, else
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
