"""The folder of a batch: held by one client, begun anew or gone on with only as asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.jobs import KEPT, VERSION, is_there, output_of
from geo_refdiff.batch.manifest import FILE, Manifest, remove_leftovers
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.raster.atomic import output_error, write_json_atomic
from geo_refdiff.raster.lock import held

if TYPE_CHECKING:
    from geo_refdiff.batch.inputs import Sources

_SETTINGS = "batch.json"
_SHOWN = 6
_MOST_THREADS = 4096


def is_batch(folder: Path) -> bool:
    """Whether a folder is that of a batch's outputs."""
    return (folder / KEPT / _SETTINGS).is_file()


def check_folder(folder: Path) -> None:
    """Whether a folder is missing, empty or that of a batch.

    Raises:
        OutputError: it holds somebody else's files.
    """
    if folder.exists() and not (folder / KEPT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: holds other files; give an empty or a new folder for the batch's outputs")


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a batch and hold it for this process.

    Raises:
        BusyError: another client holds it; names host and process.
        OutputError: it cannot be made, or holds somebody else's files.
    """
    kept = folder / KEPT
    check_folder(folder)
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    with held(kept / "lock", str(folder), "wait for it or choose another --out"):
        for part in kept.glob("jobs-*.jsonl"):
            with suppress(OSError):
                part.unlink()
        remove_leftovers(folder)
        yield


def rules_of(sources: Sources) -> dict[str, Any]:
    """How a batch chooses its inputs, as arguments: files may join a folder or an index, but not another source."""
    named = {"scene": sources.scenes, "ref": sources.references, "mask": sources.masks}
    rules: dict[str, Any] = {key: sorted({_absolute(v) for v in given}) for key, given in named.items()}
    assets = {f"{'ref' if role == 'reference' else role}_asset": text for role, text in sources.assets.items()}
    return rules | assets | {"date": sources.date, "ref_before": sources.ref_before}


def _absolute(source: str | Path) -> str:
    name, bar, layer = str(source).partition("|")
    path = Path(name).expanduser()
    return f"{path.absolute()}{bar}{layer}" if path.exists() else str(source)


def take_over(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """Write down the settings to run with, `settled`, in a folder that is held.

    Raises:
        ResumeError: the batch that lies there has others, which are named.
        OutputError: they cannot be written.
    """
    new = settled(folder, settings, overwrite=overwrite)
    write_json_atomic(folder / KEPT / _SETTINGS, new)
    return new


def settled(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """The settings to run with: these, and threads and the like of the batch that lies there.

    Args:
        folder: of the batch.
        settings: of this run: "options", "rules", "model_sha256", "threads", "replace".
        overwrite: begin anew.

    Raises:
        ResumeError: the batch that lies there has others, which are named.
    """
    path = folder / KEPT / _SETTINGS
    new = {"version": VERSION, **settings}
    if path.exists() and not overwrite:
        old = _read(path)
        changed = [
            f"{key}: {_change(old.get(group, {}).get(key), value.get(key))}"
            for group, value in (("options", new["options"]), ("rules", new["rules"]))
            for key in sorted({*old.get(group, {}), *value})
            if old.get(group, {}).get(key) != value.get(key)
        ]
        if old.get("model_sha256") != new["model_sha256"]:
            changed.append("the model's files")
        if old.get("version") != VERSION:
            changed.append(f"format version: {old.get('version')} -> {VERSION}")
        if changed:
            raise ResumeError(
                f"{folder}: holds a batch of other settings: {'; '.join(changed[:_SHOWN])}; "
                f"give the same, another --out, or --overwrite to begin anew"
            )
        if isinstance(old.get("threads"), int) and 0 < old["threads"] <= _MOST_THREADS:
            new["threads"] = old["threads"]
        new["replace"] = bool(old.get("replace"))
    return new


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and all(isinstance(data.get(k), dict) for k in ("options", "rules")):
            return data
    except (OSError, ValueError):
        pass
    raise ResumeError(f"{path}: is damaged; begin anew with --overwrite, or choose another --out")


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):  # what they share tells nothing
        old, new = [v for v in old if v not in new] or old, [v for v in new if v not in old] or new
    return f"{_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:16]}...{text[-41:]}"


def outline_digest(area: Area) -> str:
    """SHA-256 of an area's outline."""
    return hashlib.sha256(area.text.encode()).hexdigest()


def check_outlines(
    folder: Path, areas: Sequence[Area], outlines: Sequence[str], old: Mapping[str, Mapping[str, Any]]
) -> None:
    """Whether areas are those that the batch began with, as far as it had them.

    Raises:
        ResumeError: an area of the same name had another outline.
    """
    moved = [
        area.name
        for area, outline in zip(areas, outlines, strict=True)
        if area.name in old and old[area.name]["outline_sha256"] != outline
    ]
    if moved:
        raise ResumeError(
            f"{folder}: area '{moved[0]}'{f' and {len(moved) - 1} more' if len(moved) > 1 else ''} had another "
            f"outline when the batch began; choose another --out, or --overwrite to begin anew"
        )


def open_manifest(
    folder: Path, areas: Sequence[Area], options: Mapping[str, Any], *, retry_failed: bool, overwrite: bool
) -> tuple[Manifest, list[str], list[str]]:
    """The manifest for these areas, with what the batch that lies there has done of them.

    Args:
        folder: held.
        areas: of the batch.
        options: of `upscale`.
        retry_failed: whether failures are to be done again.
        overwrite: nothing counts as done.

    Returns:
        The manifest; names to be done; notes.

    Raises:
        ResumeError: what lies there is no manifest, or an area of the same name had another outline.
        OutputError: it cannot be written.
    """
    manifest, old = Manifest(folder / FILE), {}
    outlines = [outline_digest(area) for area in areas]
    if manifest.path.exists():
        try:
            old = manifest.values()
        except ResumeError:
            if not overwrite:
                raise
            manifest.remove()
    if overwrite:
        old = {}
    check_outlines(folder, areas, outlines, old)
    gone = len(set(old) - {area.name for area in areas})
    notes = [f"{gone} areas of the batch before are not among the areas any more; their files stay"] if gone else []
    if old.keys() != {area.name for area in areas}:
        manifest.bring(areas, outlines, old)
    todo, changed = [], _Changed()
    for area in areas:
        status = old.get(area.name, {}).get("status")
        if status == "done" and is_there(output_of(folder, area.name, options), options):
            changed.look(area.name, old[area.name]["inputs"])
            continue
        if status == "failed" and not retry_failed:
            continue
        todo.append(area.name)
        if status not in (None, "pending"):
            manifest.set(area.name, status="pending", error=None)
    manifest.write()
    return manifest, todo, [*notes, *changed.notes()]


class _Changed:
    """Which areas that are done were made of files that have been changed since; a file that is gone does not count."""

    def __init__(self) -> None:
        self._now: dict[str, list[int] | None] = {}
        self._found: dict[str, list[str]] = {}

    def look(self, area: str, inputs: str | None) -> None:
        """Look at the files of an area, as the manifest has them."""
        try:
            for name, *stamp in json.loads(inputs or "[]"):
                if name not in self._now:
                    self._now[name] = _stamp(name)
                if self._now[name] not in (None, stamp):
                    self._found.setdefault(name, []).append(area)
        except (ValueError, TypeError):
            return

    def notes(self) -> list[str]:
        """One line a file, of the first few."""
        told = [
            f"{name}: was changed after {areas[0]}{f' and {len(areas) - 1} more areas' if len(areas) > 1 else ''} "
            f"had been made of it; they stay as they are: remove their outputs to have them made again"
            for name, areas in list(self._found.items())[:_SHOWN]
        ]
        more = len(self._found) - _SHOWN
        return [*told, f"{more} more inputs were changed after areas had been made of them"] if more > 0 else told


def _stamp(name: str) -> list[int] | None:
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]


def tidy(folder: Path) -> None:
    """After a batch without failures: what was only needed to run it goes."""
    for part in (folder / KEPT).glob("jobs-*.jsonl"):
        with suppress(OSError):
            part.unlink()
