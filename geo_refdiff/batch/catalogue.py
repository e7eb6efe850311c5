"""What there is to choose from: rasters with footprints and dates, from files, folders, indices and STAC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from geo_refdiff.batch.entry import URL, Entry, gdal_name, opened
from geo_refdiff.batch.index_table import TABLES, read_table
from geo_refdiff.batch.state import is_batch
from geo_refdiff.engine.publish import published_digest
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.gdal import is_gdal_name
from geo_refdiff.raster.layer_source import LayerSource, layer_source

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png")


def read_catalogue(
    sources: Sequence[str | Path], role: str, assets: Sequence[str] = (), unusable: list[str] | None = None
) -> list[Entry]:
    """All rasters that are named, in a fixed order, each once.

    Args:
        sources: raster files, VRTs, folders (searched through for rasters), CSV or vector tables with a column "path"
            (or "file", "location", "href", "url") and maybe "date", STAC items, ItemCollections or catalogues (JSON,
            path or URL).
        role: "scene", "reference" or "mask", for messages.
        assets: keys of the STAC assets to use; several are stacked as bands.
        unusable: gets a line for each file of a folder that cannot be used; None: such a file is an error.

    Raises:
        InputError: a source is missing, unreadable, or holds no raster.
    """
    entries: list[Entry] = []
    for source in map(str, sources):
        entries += _read(source, role, assets, unusable)
    return list({entry.files: entry for entry in entries}.values())


def _read(source: str, role: str, assets: Sequence[str], unusable: list[str] | None) -> list[Entry]:
    table = LayerSource(source) if URL.match(source) else layer_source(source)
    name = gdal_name(table.path) if table.path.lower().startswith("file:") else table.path
    suffix = Path(name.partition("?")[0]).suffix.lower()
    remote = URL.match(name) is not None
    if suffix == ".json" or (remote and suffix in ("", ".geojson")) or (suffix == ".geojson" and _is_stac(name)):
        from geo_refdiff.batch.stac_source import read_stac

        return read_stac(name, role, assets)
    if is_gdal_name(name):
        return opened([gdal_name(name)])
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, role, unusable)
    if not path.exists():
        raise InputError(f"{path}: no such file; give a {role}, a folder, an index (CSV, GeoPackage) or STAC JSON")
    if suffix in TABLES:
        return read_table(path, table, role)
    return opened([str(path.absolute())])


def _from_folder(path: Path, role: str, unusable: list[str] | None) -> list[Entry]:
    """The rasters of a folder, but for what runs have made of them: that counts only where it is named."""
    if is_batch(path):
        raise InputError(f"{path}: holds the outputs of a batch; name those that are meant")
    files = _rasters(path)
    if not files:
        raise InputError(f"{path}: the folder holds no raster ({', '.join(RASTERS)}); give the {role}s")
    made: list[str] = []
    found = opened([str(file.absolute()) for file in files if not _is_quicklook(file)], unusable, made)
    if made and unusable is not None:
        unusable.append(f"{path}: {len(made)} outputs of runs, such as {min(made)}; name those that are meant")
    if not found:
        raise InputError(
            f"{path}: none of its {len(files)} rasters can be used ({len(made)} are outputs of runs); check them with "
            f"gdalinfo"
        )
    return found


def _rasters(path: Path) -> list[Path]:
    """Files in a fixed order, but for those of batches, of unfinished runs, shards, and what is hidden."""
    found: list[Path] = []
    for name, folders, files in os.walk(path):
        folder = Path(name)
        folders[:] = [f for f in folders if f[0] != "." and not f.endswith((".parts", ".shards"))]
        if is_batch(folder):
            folders.clear()
        else:
            found += [folder / f for f in files if f[0] != "." and Path(f).suffix.lower() in RASTERS]
    return sorted(found)


def _is_quicklook(file: Path) -> bool:
    return file.suffix == ".png" and any(published_digest(file.with_suffix(end)) for end in (".tif", ".vrt"))


def _is_stac(name: str) -> bool:
    from geo_refdiff.batch.stac_source import is_stac

    return is_stac(name)


def check_asset_names(text: str | None) -> tuple[str, ...]:
    """Keys from "red,green,blue".

    Raises:
        OptionError: nothing but commas.
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise OptionError(f"asset '{text}': give the key of an asset, or several for bands: red,green,blue")
    return names
