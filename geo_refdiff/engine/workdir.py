"""The folder of a run: plan, lock, finished blocks. All that a crash can leave behind is in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from geo_refdiff.engine.writer import BLOCKS, BlockFiles, own_blocks
from geo_refdiff.errors import OptionError, OutputError, ResumeError
from geo_refdiff.plan.file import differences, read_plan
from geo_refdiff.plan.layout import BlockLayout
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.raster.files import check_free, held, output_error, write_json_atomic

_PLAN = "plan.json"
_LOCK = "lock"
_WORKERS = "workers"
_SHARDS = "shards-"
_SHOWN = 6
_GEOTIFF = (".tif", ".tiff")


def workdir_of(out: Path) -> Path:
    """The folder of the run that makes `out`: beside it, on the same disk."""
    return out.with_name(f"{out.name}.parts")


class Workdir:
    """Names within the folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def plan(self) -> Path:
        """plan.json."""
        return self.path / _PLAN

    @property
    def workers(self) -> Path:
        """Lock that other processes hold, shared, while they write blocks: a plan is not replaced meanwhile."""
        return self.path / _WORKERS

    def shards(self, size: int) -> Path:
        """Folder of the finished shards of so many pixels a side, until all are there."""
        return self.path / f"{_SHARDS}{size}"

    def blocks(self, layout: BlockLayout) -> BlockFiles:
        """The block files."""
        return BlockFiles(self.path, layout)

    def done(self, layout: BlockLayout, among: Sequence[int] | None = None) -> set[int]:
        """Blocks that are finished, of all or of some."""
        return self.blocks(layout).done(among)

    def prepare(self, plan: Plan, *, resume: bool, overwrite: bool) -> Plan:
        """Make the folder for a plan, or check that the one there belongs to it.

        Call it with the lock held.

        Returns:
            The plan to run: `plan`, on a resumed run with its number of threads.

        Raises:
            BusyError: workers of a run before are still writing there.
            ResumeError: a run of another plan is there and is to be resumed (all that differs is named), or a run
                that has finished blocks is there and neither `resume` nor `overwrite` was said.
            OutputError: the folder cannot be written.
        """
        if self.plan.exists() and resume:
            old = read_plan(self.plan)
            changed = differences(old, plan)
            if changed:
                more = f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
                raise ResumeError(
                    f"{self.path}: cannot be resumed, this is not the same run: {'; '.join(changed[:_SHOWN])}{more}; "
                    f"give the same inputs and options, or start over with --overwrite"
                )
            self.clean()
            try:
                own_blocks(self.path).mkdir(exist_ok=True)
            except OSError as error:
                raise output_error(self.path / BLOCKS, error) from error
            threads = {k: v for k, v in old.software.items() if k == THREADS}
            plan = replace(plan, software={**plan.software, **threads})  # nothing else of the file is believed
            write_json_atomic(self.plan, plan.to_dict())
            return plan
        if self.plan.exists() and not overwrite and self._holds_blocks():
            raise ResumeError(
                f"{self.path}: holds an unfinished run; continue with --resume or start over with --overwrite"
            )
        used_by_workers = self.workers.exists()
        with held(self.workers, str(self.path), "wait for its workers") if used_by_workers else nullcontext():
            try:
                self.plan.unlink(missing_ok=True)  # first: old blocks never stand beside a plan that is not theirs
                for folder in (self.path / BLOCKS, *self.path.glob(f"{_SHARDS}*")):
                    if folder.exists():
                        shutil.rmtree(folder)
                (self.path / BLOCKS).mkdir()
            except OSError as error:
                raise output_error(self.path, error) from error
            write_json_atomic(self.plan, plan.to_dict())
        return plan

    def _holds_blocks(self) -> bool:
        """Whether anything finished is there, which is not given up unasked."""
        finished = (self.path.glob(f"{pattern}/*") for pattern in (BLOCKS, f"{_SHARDS}*"))
        return any(not file.name.startswith(".") for files in finished for file in files)

    def clean(self) -> None:
        """Remove what a killed run left half-written."""
        for pattern in (f"{BLOCKS}/.*.tmp-*", f"{_SHARDS}*/.*.tmp-*", ".*.tmp-*", "published*"):
            for leftover in self.path.glob(pattern):
                with suppress(OSError):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def remove(self) -> None:
        """Remove the folder, the plan first, so that a kill in between leaves nothing that looks like a run."""
        with suppress(OSError):
            self.plan.unlink()
        for folder in (self.path / BLOCKS, *self.path.glob(f"{_SHARDS}*")):
            shutil.rmtree(folder, ignore_errors=True)
        self.clean()
        for file in (*self.path.glob("mosaic*.vrt"), self.workers, self.path / _LOCK):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: somebody else's files
            self.path.rmdir()

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the folder for this process, made if it is missing; gives whether it was there before.

        Raises:
            BusyError: another process holds it; names process and host.
            OutputError: the folder cannot be made, or it is not that of a run.
        """
        own_blocks(self.path)
        existed = self.path.exists()
        if existed and not (self.path / _LOCK).exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"{self.path}: is needed for unfinished blocks, but holds something else; move it away or choose "
                f"another output"
            )
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error
        with held(self.path / _LOCK, str(self.path), "wait for it or choose another output"):
            yield existed


def check_geotiff(out: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Whether a GeoTIFF may be written as `out`: by its name, and as `check_output`.

    Raises:
        OptionError: it is not called .tif or .tiff.
        OutputError: as `check_output`.
    """
    if out.suffix.lower() not in _GEOTIFF and not out.is_dir():
        raise OptionError(f"{out}: a GeoTIFF is written; call it {out.with_suffix('.tif').name}")
    check_output(out, overwrite, inputs)


def check_output(out: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Whether `out` may be written, as far as can be checked without writing.

    Raises:
        OutputError: the folder is missing, no folder or read-only; `out` is a folder, an input, no regular file, or a
            file that is not to be replaced.
    """
    folder = out.parent
    if not folder.exists():
        raise OutputError(f"{out}: its folder {folder} does not exist; create it first")
    if not folder.is_dir():
        raise OutputError(f"{out}: {folder} is not a folder; choose another path")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; choose a file name")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise OutputError(f"{out}: the disk of {folder} is read-only; choose another folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: no permission to write in {folder}; choose another folder")
    if out.exists() and any(os.path.exists(given) and out.samefile(given) for given in inputs):
        raise OutputError(f"{out}: is one of the inputs; choose another name for the output")
    check_free(out, overwrite)
