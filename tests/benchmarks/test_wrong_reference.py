"""What the benchmark of wrong references prints of its places."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import wrong_reference


def test_a_row_for_each_reference_over_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(index: int, *_: Any) -> tuple[float, dict[tuple[str, str], Any]]:
        return 0.5, {("black", mode): (0.5 + 0.1 * index, 0.25, index == 0) for mode in ("auto", "off")}

    places = [(f"place {i}", Path("old"), Path("new"), None) for i in range(3)]
    monkeypatch.setattr(wrong_reference, "need_city", lambda city: None)
    monkeypatch.setattr(wrong_reference, "pairs", lambda city, count: iter(places[:count]))
    monkeypatch.setattr(wrong_reference, "measured", measured)
    monkeypatch.setattr(wrong_reference, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))
    done = CliRunner().invoke(wrong_reference.main, ["--places", "3", "--jobs", "1"], catch_exceptions=False)
    assert done.exit_code == 0
    rows = [line for line in done.output.splitlines() if "black" in line]
    assert len(rows) == 2
    assert all("+0.1000" in row and "25.0%" in row and "1 of 3" in row for row in rows)
