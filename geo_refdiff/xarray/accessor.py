"""The accessors `DataArray.refdiff` and `Dataset.refdiff`."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import torch
import xarray
from dask.base import tokenize
from dask.delayed import delayed

from geo_refdiff import __version__
from geo_refdiff.change.polygons import mask_name
from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.options import FIELDS, OutputOptions, UpscaleOptions, fields_of, takes_options
from geo_refdiff.plan.outline import Outline, make_outline, scale_of
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.clouds import KINDS, NamedLayer
from geo_refdiff.raster.geobox import crs_wkt
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.restore.models import default_batch
from geo_refdiff.xarray.arrays import Layers, centres, layers, stacked
from geo_refdiff.xarray.store import Store, Stored, store_image, temporary_folder
from geo_refdiff.xarray.tasks import DeferredPlan, get_block, get_ready

_LOG = logging.getLogger("geo_refdiff.xarray")

OPTIONS = {name: field for name, field in FIELDS.items() if name not in ("mask", "threads", *fields_of(OutputOptions))}
"""Options of `geo_refdiff.upscale` that the accessor takes; the others are about its output file or its process."""

_STALE = ("spec", "transform", "resolution", "resolution_xy", "res", "is_tiled", "nodatavals")


Array = xarray.DataArray | xarray.Dataset
"""Pixels: a DataArray, or a Dataset whose variables are the bands."""


@xarray.register_dataset_accessor("refdiff")
@xarray.register_dataarray_accessor("refdiff")
class RefdiffAccessor:
    """`DataArray.refdiff` and `Dataset.refdiff`: geo-refdiff on arrays, and on arrays whose bands are variables."""

    def __init__(self, data: Array) -> None:
        self._data = data

    @takes_options(OPTIONS)
    def upscale(
        self,
        ref: Raster | Array | None = None,
        mask: Any = None,
        *,
        folder: str | Path | None = None,
        **options: Any,
    ) -> Array:
        """The data on a grid `scale` times finer: lazy, with the pixels of `geo_refdiff.upscale`.

        Nothing is computed until it is asked for; grid, type, nodata and chunks are known at once. The first block
        that is computed needs the whole coarse array, as the command surveys the whole scene, too: its chunks are
        written to files once, the plan is made, and from then on each block reads what it needs.

        Args:
            ref: older, finer reference: a file, an open rasterio dataset, a DataArray or a Dataset, any CRS.
            mask: change mask: a file, an array, polygons as of `geo_refdiff.upscale`, "auto" (as with None, where
                there is a reference) or "none".
            folder: for the array's chunks and the plan, kept for the next time; to be seen by all workers. Default: a
                temporary one of this machine, removed when the process ends.
            options: as of `geo_refdiff.upscale`, listed below; `mask_confidence`, `cloud_mask` and `like` may be
                arrays, clouds of the kind that the array is named after ("scl", "qa_pixel", ...), else its values.

        Returns:
            The same dimensions in the same order, attributes and names; y and x are pixel centres; chunks are the
            plan's blocks (`block_size`). Each step of another dimension, such as time, is a scene of its own. Of a
            Dataset the variables with pixels, whose names are the names of bands.

        Raises:
            InputError, GridError, ModelError, OptionError: one line each; variables of a Dataset that differ in type,
                dimensions or nodata value; what only pixels can tell is raised when they are computed.
        """
        data = self._data
        if isinstance(data, xarray.Dataset):
            array = stacked(data, "the dataset")
            return _as_dataset(data, _upscaled(array, ref, mask, folder, options).to_dataset(dim=array.dims[0]))
        return _upscaled(data, ref, mask, folder, options)


def _as_dataset(given: xarray.Dataset, made: xarray.Dataset) -> xarray.Dataset:
    """The upscaled variables with the attributes of those given."""
    for name, variable in made.data_vars.items():
        own = given[name].attrs
        variable.attrs |= {k: v for k, v in own.items() if k not in _STALE and k not in variable.attrs}
        variable.attrs.pop("long_name", None)
        if "long_name" in own:
            variable.attrs["long_name"] = own["long_name"]
    made.attrs = dict(given.attrs)
    return made


def _upscaled(
    array: xarray.DataArray, ref: Raster | Array | None, mask: Any, folder: str | Path | None, options: dict[str, Any]
) -> xarray.DataArray:
    base = _folder(folder)
    scenes = layers(array, "the array")
    stored = [store_image(image, base, "the array") for image in scenes.images]
    if stored[0].store.info.validity == "none":
        _LOG.warning("the array has no nodata value: all pixels are data; else say it: .rio.write_nodata(0)")
    mask = mask_name(mask, lambda: stored[0].store.info.crs_wkt)
    inputs: dict[str, Any] = {"ref": ref, "mask": mask}
    inputs |= {name: options[name] for name in ("mask_confidence", "cloud_mask") if name in options}
    beside = {k: _stored(v, base, k) for k, v in inputs.items() if isinstance(v, Array)}
    given = options | inputs | {k: s.store.info.path for k, s in beside.items()}
    if isinstance(options.get("like"), Array):
        like = replace(_stored(options["like"], base, "like").store.info, path="array")
        given |= {"like": None, "scale": scale_of(like, stored[0].store.info, options.get("scale"))}
    if "cloud_mask" in beside:
        given["cloud_mask"] = _named(given["cloud_mask"], options["cloud_mask"])
    reference = given.pop("ref")
    reference = None if reference is None else name_of(reference)
    asked = UpscaleOptions.among(given | {"products": ()})
    _check_files(asked, [s.store for s in beside.values()])
    outline = _outline(asked, stored[0].store, reference, beside.get("ref"))
    blocks = [_blocks(asked, reference, s, beside, outline) for s in stored]
    return _as_array(array, scenes, blocks, outline)


def _folder(folder: str | Path | None) -> Path:
    if folder is None:
        return temporary_folder()
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise OutputError(f"{path}: no such folder; create it first")
    return path


def _stored(array: Array, folder: Path, role: str) -> Stored:
    if isinstance(array, xarray.Dataset):
        array = stacked(array, f"{role} dataset")
    images = layers(array, f"{role} array")
    if len(images.images) != 1:
        raise InputError(
            f"{role} array: has {len(images.images)} steps along {images.stack}; choose one: .isel({images.stack}=0)"
        )
    return store_image(images.images[0], folder, f"{role} array")


def _named(path: str, array: Array) -> str:
    """A layer of clouds with its kind, where the array's name is one."""
    kind = next((kind for kind in KINDS if kind == str(getattr(array, "name", "")).lower()), None)
    return str(NamedLayer(path, kind))


def _check_files(options: UpscaleOptions, stores: list[Store]) -> None:
    """What is named must be there now, though it is read later."""
    arrays = {s.info.path for s in stores}
    for name in (*options.mask.files, *filter(None, [options.clouds.file])):
        if name not in arrays and "://" not in name and not name.startswith("/vsi") and not Path(name).exists():
            raise InputError(f"{name}: no such file; give a raster or vector file, or an array")


def _outline(options: UpscaleOptions, scene: Store, ref: str | None, stored: Stored | None) -> Outline:
    if stored is not None:
        return make_outline(options, scene.info, stored.store.info)
    return make_outline(options, scene.info, None if ref is None else inspect(ref, "reference"))


def _blocks(
    options: UpscaleOptions, ref: str | None, scene: Stored, beside: dict[str, Stored], outline: Outline
) -> dask.array.Array:
    """(band, y, x) pixels; a chunk is a block."""
    stored = [scene, *beside.values()]
    named = [name for name in (*options.mask.files, options.clouds.file) if name is not None]
    files = [(f, Path(f).stat().st_mtime_ns) for f in named if Path(f).exists()]
    threads, batch = torch.get_num_threads(), options.compute.batch_size or default_batch(outline.device)
    token = tokenize(
        options.flat(), outline.scene, outline.reference, outline.model.sha256, files, threads, __version__, batch,
        [s.store.info.path for s in stored],
    )  # fmt: skip
    job = DeferredPlan(token, scene.store.info.path, ref, options, tuple(s.store for s in stored), batch, threads)
    ready = delayed(get_ready, pure=True)(job, [s.written for s in stored], dask_key_name=f"refdiff-plan-{token}")
    layout, (height, width) = outline.blocks, outline.geobox.shape
    dtype = np.dtype(outline.output.dtype)
    chunks = tuple(
        tuple(min(layout.size, length - start) for start in range(0, length, layout.size))
        for length in (int(height), int(width))
    )
    pixels: dask.array.Array = dask.array.map_blocks(
        get_block,
        ready,
        dtype=dtype,
        chunks=((len(outline.bands.output),), *chunks),
        meta=np.empty((0, 0, 0), dtype=dtype),
        name=f"refdiff-upscale-{token}",
    )
    return pixels


def _as_array(
    array: xarray.DataArray, scenes: Layers, blocks: list[dask.array.Array], outline: Outline
) -> xarray.DataArray:
    """Pixels with dimensions, coordinates and attributes as the array has them."""
    y, x = array.rio.y_dim, array.rio.x_dim
    positions = [b - 1 for b in outline.bands.output]
    banded, stack = scenes.band in array.dims, scenes.stack
    dims = [*([stack] if stack is not None else []), scenes.band, y, x]
    pixels = blocks[0] if stack is None else dask.array.stack(blocks)
    kept = array.isel({scenes.band: positions}) if banded else array
    mapping = array.rio.grid_mapping
    coords = {
        name: coord
        for name, coord in kept.coords.items()
        if not {x, y} & set(coord.dims) and name not in (x, y, mapping)
    }
    affine, (height, width) = outline.geobox.affine, outline.geobox.shape
    if affine.b == affine.d == 0:
        for name, values in zip((x, y), centres(affine, int(height), int(width)), strict=True):
            attrs = array.coords[name].attrs if name in array.coords else {}
            coords[name] = xarray.DataArray(values, dims=(name,), attrs=attrs)
    if not banded:
        pixels, dims = pixels[..., 0, :, :], [d for d in dims if d != scenes.band]
    result: xarray.DataArray = xarray.DataArray(pixels, coords, dims, attrs=_attributes(array, positions, outline))
    result = result.rename(array.name).transpose(*array.dims)
    result = result.rio.set_spatial_dims(x_dim=x, y_dim=y).rio.write_crs(crs_wkt(outline.geobox), mapping)
    result = result.rio.write_transform(affine, mapping)
    result.encoding = {k: v for k, v in array.encoding.items() if k == "_FillValue"}
    return result


def _attributes(array: xarray.DataArray, positions: list[int], outline: Outline) -> dict[str, Any]:
    attrs = {k: v for k, v in array.attrs.items() if k not in _STALE and not str(k).startswith("STATISTICS_")}
    names = attrs.get("long_name")
    if isinstance(names, tuple | list) and max(positions) < len(names):
        attrs["long_name"] = tuple(names[p] for p in positions)
    return attrs | {
        "geo_refdiff_version": __version__,
        "geo_refdiff_model": outline.model.name,
        "geo_refdiff_model_sha256": outline.model.sha256 or "none",
        "geo_refdiff_scale": outline.scale,
    }
