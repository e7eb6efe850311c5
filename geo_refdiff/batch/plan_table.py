"""What a batch would do, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.jobs import Settings
from geo_refdiff.batch.manifest import FILE, Manifest, check_outlines, status_of
from geo_refdiff.batch.selection import Planner, plan_or_reason
from geo_refdiff.engine.estimate import Speeds, duration, rough_estimate
from geo_refdiff.raster.process import cores

_WIDEST, _PAGE = 40, 400
"""Characters of a cell, and of a line: none is broken."""


@dataclass(frozen=True, slots=True)
class PlannedArea:
    """An area of a planned batch.

    Attributes:
        name: of the area.
        status: "pending", "done", "failed" (tried again only with --retry-failed), or "impossible".
        scene, reference, mask: names of the files, " + " between those of a mosaic, the one on top first.
        width, height: output pixels.
        blocks: of the output.
        raw_mib: of the output's pixels, uncompressed.
        disk_mib: of the output, about.
        memory_mib: of the process that makes it, about.
        seconds: it is expected to take, by the speed of what is done so far, or of runs of the kind on this machine;
            None where there are none.
        error: why it is impossible.
        notes: what deserves a look about its inputs.
        bands: which of scene, reference and model belong together.
    """

    name: str
    status: str
    scene: str = ""
    reference: str = ""
    mask: str = ""
    width: int = 0
    height: int = 0
    blocks: int = 0
    raw_mib: float = 0.0
    disk_mib: float = 0.0
    memory_mib: float = 0.0
    seconds: float | None = None
    error: str = ""
    notes: str = ""
    bands: str = ""


@dataclass(frozen=True)
class PlanTable:
    """All areas of a planned batch."""

    areas: tuple[PlannedArea, ...]

    @property
    def possible(self) -> bool:
        """Whether all areas have what they need."""
        return all(area.status != "impossible" for area in self.areas)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"areas": [asdict(area) for area in self.areas], "bands": list(self.bands), "totals": self.totals()}

    @property
    def bands(self) -> tuple[str, ...]:
        """Each pairing of bands once."""
        return tuple(dict.fromkeys(area.bands for area in self.areas if area.bands))

    def totals(self) -> dict[str, Any]:
        """Of what is still to be done."""
        todo = [a for a in self.areas if a.status == "pending"]
        seconds = [a.seconds for a in todo if a.seconds is not None]
        return {
            "areas": len(self.areas),
            "pending": len(todo),
            "impossible": sum(a.status == "impossible" for a in self.areas),
            "megapixels": round(sum(a.width * a.height for a in todo) / 1e6, 3),
            "blocks": sum(a.blocks for a in todo),
            "raw_mib": round(sum(a.raw_mib for a in todo), 3),
            "disk_mib": round(sum(a.disk_mib for a in todo), 3),
            "memory_mib": round(max((a.memory_mib for a in todo), default=0.0), 1),
            "seconds": round(sum(seconds), 1) if seconds else None,
        }

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for head in ("area", "status", "scene", "reference", "mask", "pixels", "blocks", "MiB raw"):
            table.add_column(head, no_wrap=True)
        for a in self.areas:
            cells = [a.name, a.status, *(_cut(text or "-") for text in (a.scene, a.reference, a.mask))]
            cells.append(f"{a.width} x {a.height}" if a.width else "-")
            table.add_row(*map(Text, [*cells, str(a.blocks or "-"), f"{a.raw_mib:.1f}" if a.width else "-"]))
        console = Console(width=_PAGE, color_system=None, force_terminal=False)
        with console.capture() as shown:
            console.print(table)
        lines = [line.rstrip() for line in shown.get().splitlines()]
        t = self.totals()
        time = "" if t["seconds"] is None else f", about {duration(t['seconds'])} of one process by the speed so far"
        lines.append(
            f"{t['pending']} of {t['areas']} areas would run: {t['megapixels']:.1f} MPix, {t['blocks']} blocks, "
            f"{t['raw_mib']:.1f} MiB uncompressed, about {t['disk_mib']:.1f} MiB on disk, {t['memory_mib']:.0f} MiB of "
            f"memory a process{time}"
        )
        lines += [f"bands: {bands}" for bands in self.bands]
        return "\n".join([*lines, *(f"{a.name}: {a.error or a.notes}" for a in self.areas if a.error or a.notes)])


def plan_table(
    areas: Sequence[Area], planner: Planner, settings: Settings, folder: Path, *, retry_failed: bool, overwrite: bool
) -> PlanTable:
    """What would be done of each area, beside what a batch in that folder has done already.

    Raises:
        ResumeError: as of `open_manifest`.
    """
    manifest = Manifest(folder / FILE)
    old = manifest.rows() if manifest.path.exists() and not overwrite else {}
    check_outlines(folder, areas, old)
    done = [(row.seconds, row.megapixels) for row in old.values() if row.status == "done"]
    spent = [(seconds, pixels) for seconds, pixels in done if seconds and pixels]
    speed = sum(s for s, _ in spent) / sum(p for _, p in spent) if spent else None
    speeds = Speeds.load()
    planned = []
    for area in areas:
        plan = plan_or_reason(planner, area, settings)
        if isinstance(plan, str):
            planned.append(PlannedArea(area.name, "impossible", error=plan))
            continue
        height, width = plan.shape
        costs = rough_estimate(plan.outline, settings.options, cores(), speeds)
        planned.append(
            PlannedArea(
                area.name,
                status_of(old.get(area.name), folder, settings.options, retry_failed=retry_failed),
                plan.scene.name or "",
                plan.reference.name or "",
                plan.mask.name or "",
                width,
                height,
                plan.job.blocks,
                plan.raw_bytes / 2**20,
                costs.disk_bytes / 2**20,
                costs.memory_bytes / 2**20,
                costs.seconds if speed is None else speed * width * height / 1e6,
                notes="; ".join(plan.notes),
                bands=plan.bands,
            )
        )
    return PlanTable(tuple(planned))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
