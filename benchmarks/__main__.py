"""Runs every benchmark that has a `main()`, one after the other; what lacks its data says so and is no failure."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

import benchmarks

LEFT_OUT = ("__main__", "pictures")
"""The latter draws the pictures of docs, which are part of the project, again."""


def run_all() -> int:
    """Runs them in the order of their names.

    Returns:
        The exit code: 1 if one of them failed.
    """
    failed = 0
    for module in sorted(info.name for info in pkgutil.iter_modules(benchmarks.__path__)):
        if module in LEFT_OUT:
            continue
        main = getattr(import_module(f"benchmarks.{module}"), "main", None)
        if main is None:
            continue
        print(f"\n== {module}", flush=True)
        try:
            failed |= int(bool(main([])))
        except SystemExit as stop:  # how click commands end
            failed |= int(bool(stop.code))
    return failed


if __name__ == "__main__":
    sys.exit(run_all())
