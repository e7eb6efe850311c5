"""What `upscale` gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo_refdiff.engine.estimate import Estimate


@dataclass(frozen=True)
class UpscaleResult:
    """A finished (or only planned) run.

    Attributes:
        out: the GeoTIFF; it does not exist after `plan_only`.
        plan_path: plan.json of a run that is only planned, or kept; None once the run's folder is gone.
        crs: of the output.
        transform: pixel (col, row) to CRS units, (a, b, c, d, e, f).
        shape: (height, width), pixels.
        bands: names.
        config_path: TOML file of the settings, where the command has planned a run and no more.
        pairs: which bands of scene, reference and model belong together, as of `plan.records.Bands.pairs`.
        scale: output pixels along a scene pixel.
        model, model_sha256: the model.
        device: where it ran.
        timings: seconds: "plan", "blocks", "restore" (part of "blocks" spent in the model), "publish", "total".
        counts: "blocks", "blocks_resumed" (finished before), "windows", "batch_size", "pixels".
        estimate: what the run will take, where it is only planned.
        notes: what was decided without being asked, and what deserves a look.
    """

    out: Path
    plan_path: Path | None
    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]
    bands: tuple[str, ...]
    scale: int
    model: str
    model_sha256: str
    device: str
    timings: Mapping[str, float]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()
    pairs: Sequence[Mapping[str, Any]] = ()
    config_path: Path | None = None
    estimate: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "out": str(self.out),
            "plan": None if self.plan_path is None else str(self.plan_path),
            "config": None if self.config_path is None else str(self.config_path),
            "grid": {
                "crs": self.crs,
                "transform": list(self.transform),
                "shape": list(self.shape),
                "scale": self.scale,
            },
            "bands": list(self.bands),
            "pairs": [dict(pair) for pair in self.pairs],
            "model": {"name": self.model, "sha256": self.model_sha256},
            "device": self.device,
            "timings": {k: round(v, 3) for k, v in self.timings.items()},
            "counts": dict(self.counts),
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return self.words()

    __repr__ = __str__

    def words(self, said: Sequence[str] = ()) -> str:
        """For people.

        Args:
            said: notes that they have read already.
        """
        from geo_refdiff.raster.crs import unit_of

        height, width = self.shape
        pixel = (self.transform[0] ** 2 + self.transform[3] ** 2) ** 0.5
        size = f"{width} x {height} pixels of {pixel:.6g} {unit_of(self.crs)} in {_short(self.crs)}"
        bands = f"{len(self.bands)} band{'s' * (len(self.bands) != 1)} ({', '.join(self.bands)})"
        head = f"{self.out}: {size}, {bands}, {self.scale}x ({self.model} model)"
        notes = [f"  note: {note}" for note in self.notes if note not in said]
        if self.plan_path is not None and "blocks" not in self.timings:
            plan = f"  plan: {self.plan_path}; run it with the same command without --plan-only"
            if self.config_path is not None:
                plan = f"{plan}, or with --config {self.config_path}"
            costs = [] if self.estimate is None else [f"  {self.estimate}"]
            return "\n".join([f"planned: {head}", *costs, plan, *notes])
        total = self.timings.get("total", 0.0)
        megapixels = self.counts.get("pixels", 0) / 1e6
        speed = f", {total / megapixels:.3g} s a megapixel" if megapixels else ""
        resumed = self.counts.get("blocks_resumed", 0)
        count = self.counts.get("blocks", 0)
        done = f"{count} block{'s' * (count != 1)}" + (f" ({resumed} from before)" if resumed else "")
        return "\n".join([head, f"  {total:.1f} s on {self.device}, {done}{speed}", *notes])


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else crs[:37] + "..."
