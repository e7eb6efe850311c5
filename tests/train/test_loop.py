"""The loop learns; shares, schedule, averages and precision are what they are said to be; it stops with a word."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geo_refdiff.errors import GeoRefDiffError, OptionError, OutputError
from geo_refdiff.train import loop
from geo_refdiff.train.config import TrainConfig, TrainingConfig
from geo_refdiff.train.distributed import DistributedContext
from geo_refdiff.train.loop import Trainer, TrainingInterrupted
from geo_refdiff.train.model import new_denoiser
from geo_refdiff.train.monitor import Monitor
from geo_refdiff.train.run_folder import find_state, read_progress
from geo_refdiff.train.samples import SampleMaker, Source

Make = Callable[..., Trainer]
ALONE = DistributedContext(0, 1, "cpu")
EVEN = ("samples.degradation=bicubic", "training.edm_weight=0", "training.wavelet_weight=0", "training.bf16=false")
"""The part of the loss that is a plain mean over samples, on samples that do not depend on each other."""


@pytest.fixture
def make(tiny_config: Callable[..., TrainConfig], textures: Any, tmp_path: Path) -> Make:
    """make("training.steps=3", ...) -> a trainer on two textures."""

    def trainer(*overrides: str, context: DistributedContext = ALONE, out: str = "run") -> Trainer:
        config = tiny_config(*overrides)
        data = textures((1, 2), size=96)
        denoiser = new_denoiser(config, data.bands, data.classes)
        maker = SampleMaker([Source(data, 1.0)], config.samples, denoiser.multiple, config.training.seed)
        (tmp_path / out).mkdir(exist_ok=True)
        return Trainer(denoiser, config, maker, data.fingerprint(), tmp_path / out, context)

    return trainer


def run(trainer: Trainer, log: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """Train to the end; the lines of the log."""
    monitor = Monitor(trainer.out, trainer.config.training.steps, trainer.step, log, tensorboard=False)
    trainer.run(monitor)
    return [json.loads(line) for line in (trainer.out / "log.jsonl").read_text().splitlines()]


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.parameters]


def close(one: list[torch.Tensor], other: list[torch.Tensor], tolerance: float = 1e-5) -> bool:
    return all(torch.allclose(a, b, atol=tolerance, rtol=tolerance) for a, b in zip(one, other, strict=True))


def test_training_lowers_the_losses(make: Make) -> None:
    lines = run(
        make("training.steps=60", "training.rate=5e-3", "report.log_steps=20", "samples.faults.mask_unknown=1.0")
    )
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["mean"] < 0.9 * lines[0]["mean"]
    assert lines[-1]["edm"] < lines[0]["edm"]
    assert all(0 <= line["waiting"] <= 1 and line["images_per_s"] > 0 for line in lines)


def test_the_rate_warms_up_holds_and_falls_to_nothing() -> None:
    config = TrainingConfig(steps=100, rate=1.0, warmup=10, decay=0.5)
    rates = [config.learning_rate(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert set(rates[9:50]) == {1.0}
    assert rates[74] == pytest.approx(0.5)  # half-way down the cosine
    assert rates[99] == 0.0
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    forever = TrainingConfig(steps=100, rate=1.0, warmup=0, decay=0.0)
    assert {forever.learning_rate(step) for step in range(1, 101)} == {1.0}


def test_a_step_uses_the_rate_of_the_schedule(make: Make) -> None:
    trainer = make("training.steps=4", "training.warmup=0", "training.decay=0.25")
    before: list[torch.Tensor] = []
    norms = []
    step = trainer.update

    def noted(*args: Any) -> Any:
        before[:] = weights(trainer)
        result = step(*args)
        norms.append(sum(float((a - b).abs().max()) for a, b in zip(weights(trainer), before, strict=True)))
        return result

    trainer.update = noted  # type: ignore[method-assign]
    run(trainer)
    assert norms[-1] == 0  # the rate has fallen to nothing
    assert min(norms[:-1]) > 0


def test_the_average_follows_the_weights(make: Make) -> None:
    trainer = make("training.steps=12", "training.ema=0.5", "training.decay=0.0")
    expected = [w.double() for w in weights(trainer)]
    step = trainer.update

    def noted(number: int, *args: Any) -> Any:
        result = step(number, *args)
        decay = min(0.5, number / (number + 10))
        for slow, fast in zip(expected, weights(trainer), strict=True):
            slow.mul_(decay).add_((1 - decay) * fast.double())
        return result

    trainer.update = noted  # type: ignore[method-assign]
    run(trainer)
    average = list(trainer.average.parameters())
    assert close([a.double() for a in average], expected, 1e-6)
    assert not close(average, weights(trainer), 1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_accumulated_gradients_are_those_of_the_large_batch(count: int, make: Make) -> None:
    whole, parts = make(*EVEN, "training.steps=3", out="a"), make(*EVEN, "training.steps=3", out="b")
    parts = make(*EVEN, "training.steps=3", f"training.accumulate={count}", out="b")
    messages = [run(trainer)[-1] for trainer in (whole, parts)]
    for name in ("mean", "gradient", "gate", "start"):
        assert messages[1][name] == pytest.approx(messages[0][name], rel=1e-4)
    assert close(weights(whole), weights(parts), 2e-4)
    assert not close(weights(whole), weights(make(out="c")), 2e-4)


def test_the_shares_of_all_processes_are_the_batch() -> None:
    for world, accumulate in ((1, 1), (2, 1), (1, 4), (2, 2), (4, 1)):
        shares = [
            share for rank in range(world) for share in DistributedContext(rank, world, "cpu").shares(12, accumulate)
        ]
        assert sorted(number for share in shares for number in share) == list(range(12))
        # who takes a share does not change it
        alone = DistributedContext(0, 1, "cpu").shares(12, world * accumulate)
        assert sorted(shares, key=lambda share: share.start) == alone
    with pytest.raises(
        OptionError, match=r"training.batch 6 cannot be shared by 2 process\(es\) x .* 2 .*multiple of 4"
    ):
        DistributedContext(1, 2, "cpu").shares(6, 2)


@pytest.mark.parametrize("settings", [(), ("training.channels_last=false",), ("training.bf16=false",)])
def test_precision_and_layout_change_the_last_digits_alone(settings: tuple[str, ...], make: Make) -> None:
    plain = run(make("training.steps=4", "training.bf16=false", "training.channels_last=false", out="a"))
    other = run(make("training.steps=4", *settings, out="b"))
    for one, two in zip(plain, other, strict=True):
        for name in ("mean", "gradient", "gate", "wavelet", "start", "edm"):
            assert two[name] == pytest.approx(one[name], rel=0.03)


def test_layout_and_precision_are_as_asked(make: Make) -> None:
    kernel = make().denoiser.network.encoder[0].conv0.weight  # type: ignore[union-attr, index]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert kernel.dtype == torch.float32
    assert (
        not make("training.channels_last=false")
        .denoiser.network.encoder[0]
        .conv0.weight.is_contiguous(  # type: ignore[union-attr, index]
            memory_format=torch.channels_last
        )
    )
    for setting, dtype in (("true", torch.bfloat16), ("false", torch.float32)):
        trainer = make(f"training.bf16={setting}", "training.steps=1")
        seen: set[torch.dtype] = set()
        network: Any = trainer.denoiser.network
        network.encoder[0].conv0.register_forward_hook(lambda module, args, out, seen=seen: seen.add(out.dtype))
        run(trainer)
        assert seen == {dtype}


def test_compiling_is_asked_for_or_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda call: compiled.append(call.__name__) or call)
    for setting, expected in (("off", []), ("auto", []), ("on", ["forward", "guidance"])):  # auto: on a GPU
        trainer = make(f"training.compile={setting}", "training.steps=1")
        assert compiled == expected
        run(trainer)
        assert set(trainer.average.state_dict()) == set(trainer.denoiser.network.state_dict())


def test_a_lost_loss_stops_with_step_files_and_checkpoint(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("training.steps=9", "report.save_minutes=0")
    objective = trainer.objective
    calls: list[int] = []

    def poisoned(batch: Any, draw: Any, step: int) -> Any:
        calls.append(step)
        terms = objective(batch, draw, step)
        return terms | {"gate": terms["gate"] * torch.nan} if len(calls) == 4 else terms

    monkeypatch.setattr(trainer, "objective", poisoned)
    with pytest.raises(GeoRefDiffError) as caught:
        run(trainer)
    messages = str(caught.value)
    assert "the loss is not finite at step 4" in messages
    assert "gate nan" in messages
    assert "texture 1 (1.tif, same.tif)" in messages
    assert f"the last good checkpoint is {trainer.out / 'state'} (step 3)" in messages
    assert "\n" not in messages
    assert all(torch.isfinite(w).all() for w in weights(trainer))  # a poisoned gradient is not stepped along


def test_a_lost_gradient_stops_as_well(make: Make) -> None:
    trainer = make("training.steps=3")
    trainer.parameters[0].register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(
        GeoRefDiffError, match=r"the gradient is not finite at step 1 .*; the last good checkpoint is none yet"
    ):
        run(trainer)


def test_a_full_disk_is_reported_and_training_resumes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("training.steps=6", "report.save_minutes=0")
    save, messages = loop.save_state, list[str]()

    def full(out: Path, progress: Any, *parts: Any) -> None:
        if progress.step in (3, 4):
            raise OutputError(f"{out}: the disk is full")
        save(out, progress, *parts)

    monkeypatch.setattr(loop, "save_state", full)
    run(trainer, messages.append)
    assert sum("warning" in line and "the disk is full" in line for line in messages) == 2
    assert read_progress(trainer.out / "state").step == 6
    full_at_the_end = make("training.steps=4", "report.save_minutes=0", out="other")
    with pytest.raises(OutputError, match="the disk is full"):
        run(full_at_the_end)


def test_a_log_that_cannot_be_written_is_written_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("training.steps=6", "report.log_steps=1")
    opened, messages = Path.open, list[str]()

    def full(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "log.jsonl" and "a" in args and 1 <= sum("step" in line for line in messages) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    lines = run(trainer, messages.append)
    assert any("warning" in line and "the disk is full" in line for line in messages)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_does_so_after_the_step_and_keeps_it(number: int, make: Make) -> None:
    whole = make("training.steps=6", "report.log_steps=1", out="whole")
    run(whole)
    trainer = make("training.steps=6", "report.log_steps=1")

    def messages(line: str) -> None:
        if line.startswith("step 3/"):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match=r"stopped after step 4, kept in .*state; continue with --resume"):
        run(trainer, messages)
    assert signal.getsignal(number) is before
    again = make("training.steps=6", "report.log_steps=1")
    assert again.resume() == 4
    lines = run(again)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(a, b) for a, b in zip(weights(again), weights(whole), strict=True))


def test_there_is_no_checkpoint_at_first(make: Make) -> None:
    trainer = make()
    assert trainer.resume() == 0
    assert find_state(trainer.out) is None
