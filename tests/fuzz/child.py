"""A fuzz in a process of its own, whose memory and time are limited: `child.py FOLDER SEED TARGET=COUNT...`.

Opens COUNT spoiled copies of a target's file, after one that is not spoiled, and prints, as JSON, how often it worked,
how often it was refused, and all that should not happen: an error of another kind or of several lines, memory beyond
the limit. A case that hangs ends the process.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from itertools import count, islice
from pathlib import Path
from typing import Any

from geo_refdiff import upscale
from geo_refdiff.errors import GeoRefDiffError

MEMORY = 2**30
"""Bytes that all the cases together may take beyond what the process has at its start."""
SECONDS = 20
"""After which a case counts as hanging."""
LONGEST = 1200
"""Characters of a message for a person."""

Case = tuple[str, Callable[[], Any]]

_BYTES = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 254, 255)
_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 1e-300, 10**7, 2**31, 2**63, 10**30, 10**400, float("nan"),
    float("inf"), "", "x", "0", "nan", "../../../etc/passwd", "/etc/passwd", "/dev/zero",
    "/vsicurl/http://127.0.0.1:9/x.tif", "a\nb\nc", "\u0000", "\ud800", "\u2028", "9" * 5000, [], {}, [[]], [None],
    [-1], [0], [1e308], [1] * 300, [2**40], {"": {}}, {"a\nb": 1},
)  # fmt: skip


def spoiled_bytes(whole: bytes, draw: random.Random, header: int) -> bytes:
    """Some bytes of the first `header`, or of all, are other ones; or the end is missing, or something is twice."""
    raw = bytearray(whole)
    kind = draw.randrange(12)
    if kind == 0:
        del raw[draw.randrange(len(raw)) :]
    elif kind == 1:
        at, length = draw.randrange(min(header, len(raw))), draw.choice([1, 2, 4, 12, 100])
        raw[at:at] = raw[at : at + length]
    elif kind == 2:
        at = draw.randrange(min(header, len(raw)))
        del raw[at : at + draw.choice([1, 2, 4, 12])]
    elif kind <= 5:
        at = draw.randrange(max(1, min(header, len(raw)) - 4))
        struct.pack_into(draw.choice(["<I", "<H", ">I"]), raw, at, draw.choice([0, 1, 2, 255, 4096, 32767, 65535]))
    else:
        reach = header if kind < 11 else len(raw)
        for _ in range(draw.choice([1, 1, 1, 2, 8])):
            raw[draw.randrange(min(reach, len(raw)))] = draw.choice((*_BYTES, draw.randrange(256)))
    return bytes(raw)


def spoiled_entries(whole: bytes, draw: random.Random) -> bytes:
    """A little-endian TIFF, one or two of whose directory's entries have another type, count or value."""
    raw = bytearray(whole)
    (start,) = struct.unpack_from("<I", raw, 4)
    (entries,) = struct.unpack_from("<H", raw, start)
    for _ in range(draw.choice([1, 1, 2])):
        entry = start + 2 + 12 * draw.randrange(entries)
        part, form = draw.choice([(0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<I")])
        old = struct.unpack_from(form, raw, entry + part)[0]
        top = 2 ** (16 if form == "<H" else 32) - 1
        values = [0, 1, 2, 3, 4, 5, 8, 64, 4096, 65535, 50_000, 10**9, top, old + 1, old - 1, old * 2, old * 1000]
        struct.pack_into(form, raw, entry + part, max(0, min(top, draw.choice(values))))
    return bytes(raw)


def spoiled_json(data: Any, draw: random.Random) -> Any:
    """A copy, one or two of whose values are other ones, missing, or named otherwise."""
    data = json.loads(json.dumps(data))
    for _ in range(draw.choice([1, 1, 2])):
        places = list(_places(data))
        holder, key = draw.choice(places)
        kind = draw.randrange(10)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(["__class__", "x\ny", "path", "a.b", ""])] = holder.pop(key)
        elif kind == 2 and isinstance(holder[key], int | float):
            holder[key] = draw.choice([-holder[key], float(holder[key]), holder[key] * 1000, str(holder[key])])
        else:
            holder[key] = draw.choice(_HOSTILE)
        if not data:
            return data
    return data


def _places(data: Any) -> Generator[tuple[Any, Any], None, None]:
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        yield data, key
        if isinstance(data[key], dict | list):
            yield from _places(data[key])


def text_of(data: Any) -> bytes:
    """JSON that says NaN and infinity, too."""
    return json.dumps(data).encode("utf-8", "surrogatepass")


def tiff_cases(folder: Path, draw: random.Random, role: str, model: str) -> Generator[Case, None, None]:
    """A raster as scene, reference or mask; planned, and run where that is quick."""
    whole = (folder / f"{role}.tif").read_bytes()
    (start,) = struct.unpack_from("<I", whole, 4)
    end = start + 2 + 12 * struct.unpack_from("<H", whole, start)[0]
    header = end + 400 if start < 1000 else len(whole)
    files = {name: folder / f"{name}.tif" for name in ("scene", "ref", "mask")}
    files[role] = folder / f"spoiled-{role}.tif"

    def opened() -> None:
        for aside in folder.glob("spoiled-*.aux.xml"):
            aside.unlink()
        options: dict[str, Any] = {"model": model, "coregister": "off", "overwrite": True, "device": "cpu"}
        if role != "scene":
            options |= {"ref": files["ref"], "mask": files["mask"]}
        planned = upscale(files["scene"], out=folder / "out.tif", scale=4, plan_only=True, **options)
        height, width = planned.shape
        if height * width <= 2**18 and len(planned.bands) <= 8:
            upscale(files["scene"], out=folder / "out.tif", scale=4, **options)

    for number in count():
        raw = spoiled_entries(whole, draw) if draw.random() < 0.6 else spoiled_bytes(whole, draw, header)
        files[role].write_bytes(raw if number else whole)
        yield raw[:80].hex(), opened


def plan_cases(folder: Path, draw: random.Random) -> Generator[Case, None, None]:
    """plan.json of a run that is resumed, read by itself, and used by a worker that believes in it."""
    from geo_refdiff.plan.file import read_plan

    plan = folder / "job.tif.parts" / "plan.json"
    text = plan.read_bytes()
    data = json.loads(text)
    options: dict[str, Any] = {"model": "bicubic", "scale": 4, "block_size": 32, "device": "cpu"}

    def used() -> None:
        result = read_plan(plan)
        assert result.blocks.count == len({result.block(i) for i in range(result.blocks.count)})
        assert len(result.digest) == 64
        assert result.geobox.shape == result.shape

    def resumed() -> None:
        (folder / "job.tif").unlink(missing_ok=True)
        upscale(folder / "scene.tif", ref=folder / "ref.tif", out=folder / "job.tif", resume=True, keep=True, **options)

    for number in count():
        spoiled = text_of(spoiled_json(data, draw)) if draw.random() < 0.8 else spoiled_bytes(text, draw, len(text))
        spoiled = spoiled if number else text
        for case in (used, resumed):
            plan.write_bytes(spoiled)
            yield spoiled.decode("utf-8", "replace"), case


def model_cases(folder: Path, draw: random.Random, name: str) -> Generator[Case, None, None]:
    """A model's config.json or the header of its weights; planned, and run."""
    path = folder / "model" / name
    whole = path.read_bytes()
    length = struct.unpack_from("<Q", whole)[0] if name.endswith(".safetensors") else 0
    options: dict[str, Any] = {"model": folder / "model", "scale": 4, "device": "cpu", "overwrite": True}

    def opened() -> None:
        upscale(folder / "scene.tif", out=folder / "out.tif", coregister="off", **options)

    try:
        for number in count():
            path.write_bytes(_spoiled_model(whole, length, draw) if number else whole)
            yield path.read_bytes()[: 1 << 16].decode("utf-8", "replace"), opened
    finally:
        path.write_bytes(whole)


def _spoiled_model(whole: bytes, length: int, draw: random.Random) -> bytes:
    if not length:
        data = json.loads(whole)
        return text_of(spoiled_json(data, draw)) if draw.random() < 0.85 else spoiled_bytes(whole, draw, 400)
    if draw.random() < 0.4:
        return spoiled_bytes(whole, draw, 8 + length)
    head = text_of(spoiled_json(json.loads(whole[8 : 8 + length]), draw))
    return struct.pack("<Q", len(head)) + head + whole[8 + length :]


def manifest_cases(folder: Path, draw: random.Random) -> Generator[Case, None, None]:
    """The manifest, or the settings, of a batch that is planned and run again."""
    from geo_refdiff.batch.run import batch, plan_batch
    from geo_refdiff.options import Sources

    out = folder / "batch"
    kept = {path: path.read_bytes() for path in (out / "manifest.gpkg", out / "batch" / "batch.json")}
    settings: dict[str, Any] = {"model": "bicubic", "scale": 4, "device": "cpu", "products": "none"}

    def again(call: Any, **more: Any) -> None:
        call(folder / "areas.gpkg", Sources([folder / "scene.tif"]), out, options=settings, **more)

    def run() -> None:
        again(batch, report=folder / "report.html")

    for number in count():
        which = draw.choice(list(kept))
        for path, whole in kept.items():
            path.write_bytes(whole)
        said = _spoiled_batch(which, kept[which], draw) if number else ""
        yield said, lambda: again(plan_batch)
        yield said, lambda: again(batch, report=folder / "report.html")


def _spoiled_batch(path: Path, whole: bytes, draw: random.Random) -> str:
    if path.suffix == ".json":
        spoiled = text_of(spoiled_json(json.loads(whole), draw))
    elif draw.random() < 0.5:
        return _spoiled_rows(path, draw)
    else:
        spoiled = spoiled_bytes(whole, draw, len(whole))
    path.write_bytes(spoiled)
    return spoiled[:4000].decode("utf-8", "replace")


def _spoiled_rows(path: Path, draw: random.Random) -> str:
    import sqlite3
    from contextlib import closing

    from geo_refdiff.batch.manifest import COLUMNS

    column = draw.choice(list(COLUMNS))
    value = draw.choice(
        [None, "x", "", -1, 2**62, 1.5, float("inf"), b"\xff\x00", "../../x", "/etc/passwd", "a\nb", "done"]
    )
    with closing(sqlite3.connect(path)) as base, base:
        names = [row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in names:
            base.execute(f'DROP TRIGGER "{name}"')
        if draw.random() < 0.15:
            base.execute(f'ALTER TABLE areas DROP COLUMN "{column}"' if column != "name" else "DROP TABLE areas")
            return f"no {column}"
        base.execute(f'UPDATE areas SET "{column}" = ? WHERE fid = 1', [value])
    return f"{column} = {value!r}"


TARGETS: dict[str, Callable[[Path, random.Random], Generator[Case, None, None]]] = {
    "scene": lambda folder, draw: tiff_cases(folder, draw, "scene", "bicubic"),
    "ref": lambda folder, draw: tiff_cases(folder, draw, "ref", "matched-ref"),
    "mask": lambda folder, draw: tiff_cases(folder, draw, "mask", str(folder / "model")),
    "plan": plan_cases,
    "config": lambda folder, draw: model_cases(folder, draw, "config.json"),
    "weights": lambda folder, draw: model_cases(folder, draw, "model.safetensors"),
    "manifest": manifest_cases,
}


def _virtual() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def fuzz(target: str, folder: Path, seed: int, cases: int) -> dict[str, Any]:
    """What came of some cases."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    output: Counter[str] = Counter()
    wrong: list[str] = []
    spoiled = TARGETS[target](folder, random.Random(seed))
    for number, (said, call) in enumerate(islice(spoiled, cases + 1)):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            call()
            output["works"] += 1
        except GeoRefDiffError as error:
            output["refused"] += 1
            text = str(error)
            if not number or not text or len(text) > LONGEST or not text.isprintable():
                wrong.append(f"{target} {number}: not one line for a person: {text[:2000]!r}\n{said[:3000]}")
        except BaseException:
            wrong.append(f"{target} {number}: {traceback.format_exc()}\n{said[:3000]}")
        faulthandler.cancel_dump_traceback_later()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > MEMORY:
            wrong.append(f"{target} {number}: memory grew by {grown / 2**20:.0f} MiB\n{said[:3000]}")
            break
    spoiled.close()
    return {**output, "wrong": wrong}


def main(folder: Path, seed: int, targets: list[str]) -> dict[str, dict[str, Any]]:
    """What came of each target."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 3 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    asked = [target.split("=") for target in targets]
    return {target: fuzz(target, folder, seed, int(cases)) for target, cases in asked}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
