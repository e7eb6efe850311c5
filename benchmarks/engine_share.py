"""The engine's own share of a run with the model: `python -m benchmarks.engine_share [MODEL]`.

Where the wall time of a run over a textured scene goes: planning, restoring, the engine around it, publishing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine_memory_speed import make_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--size", type=int, default=2048, help="side of the output, pixels")
    parser.add_argument("--scale", type=int, default=8)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    from geo_refdiff import GeoRefDiffError, upscale

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = make_source(folder, options.size // options.scale)
        reference = make_source(folder, options.size, pixel=10 / options.scale)
        try:
            result = upscale(
                scene,
                ref=reference,
                model=options.model,
                scale=options.scale,
                bands=["1", "2", "3"],
                out=folder / "out.tif",
            )
        except GeoRefDiffError as error:
            print(f"left out: {error}")
            return 1
    times = result.timings
    own = times["total"] - times["restore"]
    print(
        f"model {result.model}, {options.size} x {options.size} output pixels, "
        f"{result.counts['windows']} windows, {result.device}"
    )
    print(f"{'total':>10} {'plan':>8} {'restore':>9} {'publish':>9} {'engine, all in all':>20}")
    print(
        f"{times['total']:8.1f} s {times['plan']:6.1f} s {times['restore']:7.1f} s {times['publish']:7.1f} s "
        f"{own:11.1f} s {own / times['total']:6.1%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
