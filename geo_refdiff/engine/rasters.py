"""The rasters of a run: their bands, and metadata on how they were made, what they hold, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from geo_refdiff import __version__
from geo_refdiff.engine.consistency import Residual
from geo_refdiff.engine.writer import BlockRaster
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.band_pairs import paired_bands
from geo_refdiff.raster.statistics import BandSums
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.sources import CLASSES, COLOURS, NOTHING

SOURCE = "source"
"""Name of the raster that says where detail comes from."""

UNCERTAINTY = "uncertainty"
"""Name of the raster that says how sure each pixel is."""

PLAN_TAG = "GEO_REFDIFF_PLAN_SHA256"
"""Metadata item of the output with the plan's digest."""

EXTENT_TAG = "GEO_REFDIFF_EXTENT"
"""Metadata item of the output: which part of the whole scene's output grid it holds."""

VALID_TAG = "GEO_REFDIFF_VALID_PIXELS"
"""Metadata item of the output: valid pixels of each band."""

BAND_TAG = "GEO_REFDIFF_BAND"
"""Metadata item of a band: "model", or "transfer" where the model does not know the band."""

REF_BAND_TAG = "GEO_REFDIFF_REFERENCE_BAND"
"""Metadata item of a band: the reference's band that was chosen for it, where names and places say otherwise."""

_RESIDUAL_TAG = "GEO_REFDIFF_RESIDUAL"
_CLASS_COUNTS_TAG = "GEO_REFDIFF_CLASS_COUNTS"


def run_rasters(plan: Plan) -> tuple[BlockRaster, ...]:
    """The rasters that a plan makes, block by block: the image, then the maps of sources and of uncertainty."""
    rasters = [image_raster(plan)]
    if plan.source_map:
        rasters.append(source_raster(plan))
    if plan.uncertainty is not None:
        rasters.append(uncertainty_raster(plan))
    return tuple(rasters)


def image_raster(plan: Plan) -> BlockRaster:
    """The image."""
    bands = plan.bands.output
    profile = VirtualRaster(
        geobox=plan.geobox,
        dtype=plan.output.dtype,
        count=len(bands),
        sources=(),
        nodata=plan.output.nodata,
        with_mask=plan.output.mask,
        tags=provenance(plan),
        band_tags=band_tags(plan),
    )
    return BlockRaster(with_bands_of(profile, plan.scene, bands))


def source_raster(plan: Plan) -> BlockRaster:
    """The map of where detail comes from: classes of `restore.sources`."""
    profile = VirtualRaster(
        geobox=plan.geobox,
        dtype="uint8",
        count=1,
        sources=(),
        nodata=NOTHING,
        descriptions=("source of detail",),
        colorinterp=("palette",),
        colours=COLOURS,
        tags={
            "AREA_OR_POINT": "Area",
            PLAN_TAG: plan.digest,
            **{f"GEO_REFDIFF_CLASS_{v}": name for v, name in enumerate(CLASSES)},
        },
    )
    return BlockRaster(profile, SOURCE, "mode")


def uncertainty_raster(plan: Plan) -> BlockRaster:
    """The map of half-widths (`engine.uncertainty`).

    float32, NaN = missing; a band for each of the model's bands, in the output's digital numbers (its scale applies, an
    offset does not: these are differences).

    Raises:
        GeoRefDiffError: the plan asks for none.
    """
    record, at = plan.uncertainty, [b - 1 for b in plan.bands.scene]
    if record is None:
        raise GeoRefDiffError("the plan asks for no map of uncertainty")
    profile = VirtualRaster(
        geobox=plan.geobox,
        dtype="float32",
        count=len(at),
        sources=(),
        nodata=float("nan"),
        descriptions=plan.bands.names,
        scales=tuple(plan.scene.scales[i] for i in at),
        units=tuple(plan.scene.units[i] for i in at),
        tags={
            "AREA_OR_POINT": "Area",
            PLAN_TAG: plan.digest,
            "TIFFTAG_IMAGEDESCRIPTION": record.meaning,
            "GEO_REFDIFF_UNCERTAINTY_COVERAGE": f"{record.coverage:g}",
            "GEO_REFDIFF_UNCERTAINTY_RUNS": str(record.runs),
            "GEO_REFDIFF_UNCERTAINTY_CALIBRATED": "yes" if record.calibrated else "no",
        },
    )
    return BlockRaster(profile, UNCERTAINTY)


def residual_tag(residual: Residual) -> dict[str, str]:
    """Metadata of a block file: what separates the scene from the block as the declared sensor sees it."""
    return {_RESIDUAL_TAG: json.dumps(asdict(residual))}


def block_residual(tags: Mapping[str, str]) -> Residual:
    """The inverse of `residual_tag`."""
    return Residual(**json.loads(tags[_RESIDUAL_TAG]))


def class_counts_tag(sources: NDArray[np.uint8]) -> dict[str, str]:
    """Metadata of a block file: pixels of each class of sources."""
    return {_CLASS_COUNTS_TAG: json.dumps(np.bincount(sources.ravel(), minlength=len(CLASSES)).tolist())}


def block_class_counts(tags: Mapping[str, str]) -> list[int]:
    """The inverse of `class_counts_tag`."""
    return [int(n) for n in json.loads(tags[_CLASS_COUNTS_TAG])]


def provenance(plan: Plan) -> dict[str, str]:
    """Metadata of the output: how it was made. No times and no paths, so that the same run gives the same bytes."""
    sampler = ",".join(f"{k}={v}" for k, v in plan.model.sampler.items()) or "none"
    return {
        "AREA_OR_POINT": "Area",
        PLAN_TAG: plan.digest,
        "GEO_REFDIFF_VERSION": __version__,
        "GEO_REFDIFF_MODEL": plan.model.name,
        "GEO_REFDIFF_MODEL_SHA256": plan.model.sha256 or "none",
        **({"GEO_REFDIFF_MODEL_SOURCE": plan.model.source} if plan.model.source else {}),
        "GEO_REFDIFF_SAMPLER": sampler,
        "GEO_REFDIFF_SEED": str(plan.seed),
        "GEO_REFDIFF_SCALE": str(plan.grid.scale),
        "GEO_REFDIFF_BANDS": ",".join(map(str, plan.bands.output)),
        "GEO_REFDIFF_PSF": plan.sensor.name,
        "GEO_REFDIFF_PSF_KERNEL": plan.sensor.kernel,
        "GEO_REFDIFF_PSF_SIGMAS": ",".join(f"{plan.sensor.sigmas[place]:.6g}" for place in plan.bands.order),
        "GEO_REFDIFF_CONSISTENCY": plan.sensor.consistency,
        "GEO_REFDIFF_REFERENCE": "yes" if plan.radiometry.gain else "no",
        "GEO_REFDIFF_MASK": _mask_kind(plan),
        "GEO_REFDIFF_CLOUDS": "none" if plan.scene.clouds is None else plan.clouds,
    }


def _mask_kind(plan: Plan) -> str:
    if plan.mask is None or not plan.model.sha256:
        return "no"
    return "detected" if plan.mask.kind == "auto" else "yes"


def consistency_tags(residual: Residual, dtype: str) -> dict[str, str]:
    """What was measured of the finished pixels, in the scene's numbers; nothing where consistency was off.

    Floating data have no digital number of which half could be a limit: pixels beyond are not counted.
    """
    if not residual.count:
        return {}
    tags = {
        "GEO_REFDIFF_SCENE_RESIDUAL_MAX": f"{residual.largest:.4g}",
        "GEO_REFDIFF_SCENE_RESIDUAL_RMS": f"{residual.rms:.4g}",
        "GEO_REFDIFF_SCENE_PIXELS": str(residual.count),
    }
    if np.dtype(dtype).kind != "f":
        tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_HALF_DN"] = str(residual.beyond)
        tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_SATURATED"] = str(residual.saturated)
    return tags


def unreached(tags: Mapping[str, str], dtype: str) -> str | None:
    """What strict mode could not reach, for people; None where it reached all, and for floating data.

    Args:
        tags: of an output.
        dtype: its data type.
    """
    beyond = int(tags.get("GEO_REFDIFF_SCENE_PIXELS_BEYOND_HALF_DN", 0))
    if tags.get("GEO_REFDIFF_CONSISTENCY") != "strict" or not beyond:
        return None
    saturated = int(tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_SATURATED"])
    why = [f"{saturated} see pixels at the limits of {dtype}"] if saturated else []
    why += [f"for {beyond - saturated} the declared PSF is too wide"] if beyond > saturated else []
    total, most = tags["GEO_REFDIFF_SCENE_PIXELS"], tags["GEO_REFDIFF_SCENE_RESIDUAL_MAX"]
    return (
        f"strict mode did not reach {beyond} of {total} scene pixels (bands counted apart), off by up to {most} DN: "
        f"{', '.join(why)}; where they are many, the scene may be of another sensor than --psf says"
    )


def extent_tags(plan: Plan, region: Window, sums: Sequence[BandSums]) -> dict[str, str]:
    """What part of the scene's output grid a file holds (row, column, height, width), and each band's valid pixels.

    Args:
        region: the file's, in pixels of the output.
        sums: of its bands.
    """
    corner = plan.grid.crop.multiply(plan.grid.scale)
    place = region.shift(corner.row, corner.col)
    part = "none" if place.shape == plan.target.shape else "box"
    return {
        "GEO_REFDIFF_AOI": part if plan.grid.aoi is None else "polygon",
        EXTENT_TAG: f"{place.row},{place.col},{place.height},{place.width}",
        VALID_TAG: ",".join(str(s.count) for s in sums),
    }


def band_tags(plan: Plan) -> tuple[dict[str, str], ...]:
    """Metadata of each band: made by the model, or by transfer of its detail; its band of the reference."""
    made: tuple[dict[str, str], ...] = tuple({BAND_TAG: "model"} for _ in plan.bands.scene)
    if plan.reference is not None and plan.bands.reference:
        places = [plan.scene.data_bands.index(band) for band in plan.bands.scene]
        if plan.bands.reference != paired_bands(plan.scene, plan.reference, places):
            made = tuple(tags | {REF_BAND_TAG: str(b)} for tags, b in zip(made, plan.bands.reference, strict=True))
    made += tuple({BAND_TAG: "transfer", "GEO_REFDIFF_TRANSFER_CORRELATION": f"{r:.4f}"} for r in plan.bands.fitness)
    return tuple(made[place] for place in plan.bands.order)
