"""Finds and runs the command geo-refdiff as a process of its own, without QGIS's Python in its way."""

import contextlib
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time

SETTING = "GEO_REFDIFF_COMMAND"
"""Name of the setting, and of an environment variable that stands in for it."""

_NOT_ITS = ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA")
_BLOCK = re.compile(r"block (\d+) of (\d+)(?: \((\d+)%\))?")
_AREA = re.compile(r"^\[(\d+)/(\d+)\]")
_PATIENCE = 20.0


def find_command():
    """The command as a list of words; None if there is none."""
    from processing.core.ProcessingConfig import ProcessingConfig

    named = ProcessingConfig.getSetting(SETTING) or os.environ.get(SETTING) or ""
    if named:
        path = os.path.expanduser(named)
        return [path] if os.path.exists(path) else shlex.split(named)
    installed = shutil.which("geo-refdiff") or shutil.which("geo-refdiff", path=os.path.expanduser("~/.local/bin"))
    return [installed] if installed else None


class CancelledError(Exception):
    """The user cancelled."""


def run(arguments, feedback):
    """Run `geo-refdiff ARGUMENTS`; progress and messages go to `feedback`.

    Returns:
        (exit code, stdout, last error message).

    Raises:
        OSError: the command cannot be started.
        CancelledError: cancelled; the process and its children are gone.
    """
    command = [*(find_command() or ["geo-refdiff"]), *arguments]
    feedback.pushCommandInfo(" ".join(shlex.quote(word) for word in command))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    lines = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(stream, name, lines), daemon=True)
        for name, stream in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    printed, error = [], ""
    try:
        while process.poll() is None or any(reader.is_alive() for reader in readers) or not lines.empty():
            if feedback.isCanceled():
                raise CancelledError
            try:
                name, line = lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if name == "out":
                printed.append(line)
                continue
            if line.startswith("error:"):
                error = line[len("error:") :].strip()
            share = progress_of(line)
            if line.startswith("note:"):
                feedback.pushInfo(line)
            elif share is None:
                feedback.pushConsoleInfo(line)
            else:
                feedback.setProgress(share)
                feedback.setProgressText(line)
    finally:
        _stop(process)
    return process.returncode, "\n".join(printed), error


def progress_of(line):
    """Per cent from a line of progress, None from any other."""
    area = _AREA.match(line)
    if area:
        return 100.0 * int(area.group(1)) / max(1, int(area.group(2)))
    block = _BLOCK.match(line)
    if block and block.group(3):
        return float(block.group(3))
    if block:
        return 100.0 * (int(block.group(1)) - 1) / max(1, int(block.group(2)))
    return None


def _environment():
    """QGIS's own, without what would lead another Python and another GDAL astray."""
    kept = {key: value for key, value in os.environ.items() if key not in _NOT_ITS}
    return {**kept, "GEO_REFDIFF_PROGRESS": "lines", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _read(stream, name, lines):
    with stream:
        for line in stream:
            lines.put((name, line.rstrip()))


def _stop(process):
    """Asks the process to end as Ctrl-C does, which keeps finished blocks; then ends it with all that it started."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    limit = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
