"""The first run: the bundled scene through the bundled model, with a picture and figures against the known truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geo_refdiff.commands.upscale import UpscaleResult, upscale
from geo_refdiff.engine.run import ProgressCallback
from geo_refdiff.raster.picture import Panel, stretch, write_panels
from geo_refdiff.sample_tiles import sample

_SIDE = 384
_DETAILS = ((250, 330, 192), (520, 90, 192))
"""(row, col, side) in output pixels of the close-ups."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made.

    Attributes:
        image: result of the upscale run.
        picture: before/after PNG.
        figures: method -> (PSNR dB, HaarPSI 0..1) against the sample's truth, valid pixels.
    """

    image: UpscaleResult
    picture: Path
    figures: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        rows = [f"  {name:22}{psnr:8.2f} dB{haar:9.3f}" for name, (psnr, haar) in self.figures.items()]
        return "\n".join(
            [
                str(self.image),
                "against the sample's truth:",
                f"  {'':22}{'PSNR':>11}{'HaarPSI':>9}",
                *rows,
                f"GeoTIFF: {self.image.out}",
                f"picture: {self.picture}",
            ]
        )


def run_demo(folder: Path, *, model: str = "default", progress: ProgressCallback | None = None) -> DemoResult:
    """Upscale the bundled sample into `folder` (made if missing; what an earlier demo left there is replaced).

    Raises:
        GeoRefDiffError: as `upscale`.
    """
    data = sample()
    folder.mkdir(parents=True, exist_ok=True)
    result = upscale(
        data.scene,
        ref=data.reference,
        mask=data.mask,
        out=folder / "valley_8x.tif",
        model=model,
        overwrite=True,
        progress=progress,
    )
    plain = upscale(data.scene, scale=8, out=folder / "valley_8x_bicubic.tif", model="bicubic", overwrite=True)
    with rasterio.open(data.scene) as source:
        lr = source.read()
    with rasterio.open(data.truth) as source:
        truth = source.read()
        grid = {"crs": source.crs, "transform": source.transform, "width": source.width, "height": source.height}
    with rasterio.open(data.reference) as source, WarpedVRT(source, resampling=Resampling.cubic, **grid) as warped:
        reference = warped.read()
    with rasterio.open(data.mask) as source:
        mask, table = source.read(1), source.colormap(1)
    with rasterio.open(result.out) as source:
        ours, valid = source.read(), source.dataset_mask() > 0
    with rasterio.open(plain.out) as source:
        bicubic = source.read()
    picture = folder / "before_after.png"
    colours = np.array([table[k][:3] for k in range(256)], np.uint8)[mask].transpose(2, 0, 1)
    _draw(picture, lr, bicubic, reference, colours, ours, np.where(valid, truth, 0))
    figures = {"bicubic": _figures(bicubic, truth, valid), "reference as it is": _figures(reference, truth, valid)}
    figures["ours"] = _figures(ours, truth, valid)
    return DemoResult(result, picture, figures)


def _draw(path: Path, lr: NDArray[np.uint8], *images: NDArray[np.uint8]) -> None:
    bicubic, reference, mask, ours, truth = images
    shown = truth[:3][:, (truth > 0).all(axis=0)]
    low, high = (np.percentile(shown, q, axis=1) for q in (0.5, 99.5))
    scale = truth.shape[1] // lr.shape[1]

    def cut(image: NDArray[np.uint8], area: tuple[int, int, int], factor: int = 1) -> NDArray[np.uint8]:
        row, col, side = (v // factor for v in area)
        return stretch(image[:3, row : row + side, col : col + side], low, high)

    rows = []
    for area in ((0, 0, truth.shape[1]), *_DETAILS):
        row, col, side = area
        change = mask[:, row : row + side, col : col + side]
        rows.append(
            [
                Panel("scene, 8 m, now", cut(lr, area, scale)),
                Panel("reference, 1 m, old", cut(reference, area)),
                Panel("change mask", change),
                Panel("bicubic", cut(bicubic, area)),
                Panel("geo-refdiff, 1 m, now", cut(ours, area)),
                Panel("truth", cut(truth, area)),
            ]
        )
    write_panels(path, rows, _SIDE)


def _figures(image: NDArray[np.uint8], truth: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[float, float]:
    import torch

    from geo_refdiff.evaluate import metrics

    a, b = (torch.from_numpy(np.where(valid, x, 0).astype(np.float32))[None] for x in (image, truth))
    mse = float((a - b).square().sum() / (valid.sum() * a.shape[1]))
    return 10.0 * float(np.log10(255.0**2 / max(mse, 1e-12))), float(metrics.haarpsi(a, b))
