"""What a run tells: lines that can be read, a log that survives kills, TensorBoard events where it is installed."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.errors import OptionError
from geo_refdiff.train.monitor import Monitor


def monitor(folder: Path | None, messages: list[str], first: int = 0, tensorboard: bool = False) -> Monitor:
    return Monitor(folder, 100, first, messages.append, tensorboard)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_line_tells_losses_speed_waiting_and_the_time_left(tmp_path: Path) -> None:
    messages: list[str] = []
    made = monitor(tmp_path, messages)
    made.begun -= 60  # ten steps a minute
    for _ in range(10):
        made.step(4, 0.75, 0.25)
    made.line(10, {"mean": 0.1 + 0.2, "edm": 0.5}, 1e-3)
    assert messages == ["step 10/100  mean 0.300 edm 0.500  4.0 images/s, 25 % waiting, 9 min 00 s left"]
    entry = lines(tmp_path)[0]
    assert entry["mean"] == 0.1 + 0.2  # to the last digit
    assert entry["loss"] == 0.1 + 0.2 + 0.5
    assert (entry["images_per_s"], entry["waiting"]) == (4.0, 0.25)
    for _ in range(10):
        made.step(4, 0.5, 0.0)
    made.line(20, {"mean": 0.3}, 1e-3)
    assert (lines(tmp_path)[1]["images_per_s"], lines(tmp_path)[1]["waiting"]) == (8.0, 0.0)
    assert "20 steps in 1 min 00 s: 5.3 images/s, 16.7 % of the time waiting for data" in made.summary()


def test_long_times_are_reported_in_hours(tmp_path: Path) -> None:
    messages: list[str] = []
    made = monitor(tmp_path, messages)
    made.begun -= 3600
    made.step(1, 1, 0)
    made.line(1, {"mean": 1.0}, 1.0)
    assert messages[0].endswith("99 h 00 min left")


def test_going_on_drops_what_is_done_again_and_what_a_kill_cut_short(tmp_path: Path) -> None:
    made = monitor(tmp_path, [])
    for step in (10, 20, 30):
        made.line(step, {"mean": float(step)}, 1e-3)
        made.validation(step, {"psnr": float(step)})
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 40, "me')
    again = monitor(tmp_path, [], first=20)
    assert [(entry["step"], "validation" in entry) for entry in lines(tmp_path)] == [
        (10, False), (10, True), (20, False), (20, True),
    ]  # fmt: skip
    assert again.last_validation == {"psnr": 20.0}  # for the model card, should no other follow
    assert monitor(tmp_path, [], first=5).last_validation == {}
    assert lines(tmp_path) == []


def test_nothing_is_written_by_those_who_do_not_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = monitor(None, [])
    made.step(4, 1, 0)
    made.line(10, {"mean": 1.0}, 1e-3)
    made.validation(10, {"psnr": 1.0})
    made.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    made = monitor(tmp_path, [], tensorboard=True)
    for step in (10, 20):
        made.step(4, 1, 0)
        made.line(step, {"mean": step / 10}, 1e-3)
    made.validation(20, {"sample psnr": 21.5})
    made.close()
    again = monitor(tmp_path, [], first=10, tensorboard=True)  # step 20 is done again
    again.step(4, 1, 0)
    again.line(20, {"mean": 3.0}, 1e-3)
    again.validation(20, {"sample psnr": 22.0})
    again.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/mean", "loss/rate", "loss/images_per_s", "validation/sample psnr",
    }  # fmt: skip
    assert [(event.step, event.value) for event in events.Scalars("loss/mean")] == [(10, 1.0), (20, 3.0)]
    assert [(event.step, event.value) for event in events.Scalars("validation/sample psnr")] == [(20, 22.0)]


def test_without_tensorboard_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(OptionError, match=r"report.tensorboard needs TensorBoard: pip install 'geo-refdiff\[train\]'"):
        monitor(tmp_path, [], tensorboard=True)
