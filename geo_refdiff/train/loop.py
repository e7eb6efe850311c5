"""The training loop. Every step is a function of the configuration, the data and the weights before it.

It stops between two steps when asked to, so that nothing is lost, and takes denormal numbers for zero on a CPU.
"""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import GeoRefDiffError, OutputError
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.distributed import DistributedContext
from geo_refdiff.train.monitor import Monitor
from geo_refdiff.train.objective import Objective
from geo_refdiff.train.run_folder import RunProgress, find_state, load_state, read_progress, save_state
from geo_refdiff.train.samples import Batch, DeviceStream, SampleMaker, prefetch

Batches = Generator[tuple[Batch, float], None, None]
Validate = Callable[[nn.Module, int], dict[str, float]]
_ONE_REQUEST = 2.0
"""Seconds within which signals are one request: torchrun passes on a Ctrl-C that its processes have got already."""


class Trainer:
    """One run: network, averaged network, optimizer and where it stands.

    Args:
        denoiser: the network to train, float32.
        config: of the run.
        maker: of samples.
        fingerprint: of the data.
        out: folder of the run.
        context: this process of the run.

    Raises:
        OptionError: a batch that cannot be shared by the processes alike.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        config: TrainConfig,
        maker: SampleMaker,
        fingerprint: str,
        out: Path,
        context: DistributedContext,
    ) -> None:
        self.config, self.maker, self.fingerprint, self.out, self.context = config, maker, fingerprint, out, context
        training = config.training
        self.shares = context.shares(training.batch, training.accumulate)
        memory = torch.channels_last if training.channels_last else torch.contiguous_format
        denoiser.to(device=context.device).train()
        denoiser.network.to(memory_format=memory)  # type: ignore[call-overload]
        self.denoiser = denoiser
        self.average: nn.Module = copy.deepcopy(denoiser.network).eval().requires_grad_(False)
        objective = Objective(denoiser, training, config.perception)
        self.heads = objective.heads
        self.objective: nn.Module = objective
        on_gpu = context.device.startswith("cuda")
        if training.compile == "on" or (training.compile == "auto" and on_gpu):
            _compile(denoiser.network)
        if context.world_size > 1:
            self.objective = DistributedDataParallel(self.objective, broadcast_buffers=False)
        self.parameters: list[Tensor] = list(denoiser.network.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=training.rate,
            betas=(training.beta1, training.beta2),
            fused=on_gpu,
            foreach=not on_gpu,
        )
        self.heads_optimizer = None
        if self.heads is not None:
            self.heads_optimizer = torch.optim.Adam(
                self.heads.parameters(), lr=config.perception.heads_rate, betas=(0.0, 0.99)
            )
        self.step, self.seconds, self.sums = 0, 0.0, dict[str, float]()

    def resume(self) -> int:
        """Continue from the newest checkpoint; its step, 0 where there is none."""
        state = find_state(self.out)
        if state is None:
            return 0
        progress = read_progress(state)
        load_state(state, self._networks(), self._optimizers())
        self.step, self.seconds, self.sums = progress.step, progress.seconds, dict(progress.sums)
        return self.step

    def run(self, monitor: Monitor, validate: Validate | None = None) -> None:
        """Train to the last step; checkpoints, lines of the log and validations on the way.

        A checkpoint that cannot be written is a warning, and tried again with the next; the last one must be.

        Raises:
            GeoRefDiffError: loss or gradient are not finite; names step, files and the last good checkpoint.
            TrainingInterrupted: asked to stop; a checkpoint was written.
            OutputError: the last checkpoint cannot be written.
        """
        training, report = self.config.training, self.config.report
        saved = time.monotonic()
        jobs = ((step, share) for step in range(self.step + 1, training.steps + 1) for share in self.shares)
        batches = prefetch(self.maker, jobs, training.workers, DeviceStream(self.context.device))
        with closing(batches), stop_request() as stop:
            while self.step < training.steps:
                asked = self._one(batches, stop, monitor)
                step, last = self.step, self.step == training.steps
                if step % report.log_steps == 0 or last:
                    count = step % report.log_steps or report.log_steps
                    monitor.line(step, {k: v / count for k, v in self.sums.items()}, training.learning_rate(step))
                    self.sums = {}
                if validate is not None and (last or (report.validate_steps and step % report.validate_steps == 0)):
                    monitor.validation(step, validate(self.average, step))
                if self.context.is_main and (last or asked):
                    self.save()
                elif self.context.is_main and time.monotonic() - saved > 60.0 * report.save_minutes:
                    self._try_to_save(monitor)
                    saved = time.monotonic()
                if asked and not last:
                    self.context.barrier()
                    raise TrainingInterrupted(
                        f"stopped after step {step}, kept in {find_state(self.out)}; continue with --resume"
                    )

    def save(self) -> None:
        """Write a checkpoint (OutputError where it cannot be)."""
        progress = RunProgress(
            self.step,
            self.seconds,
            self.sums,
            self.config.to_dict(),
            self.fingerprint,
            self.context.world_size,
            torch.get_num_threads(),
        )
        save_state(self.out, progress, self._networks(), self._optimizers())

    def _networks(self) -> dict[str, nn.Module]:
        """By their names in the checkpoint."""
        heads = {} if self.heads is None else {"heads": self.heads}
        return {"network": self.denoiser.network, "average": self.average, **heads}

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By their names in the checkpoint."""
        heads = {} if self.heads_optimizer is None else {"heads_optimizer": self.heads_optimizer}
        return {"optimizer": self.optimizer, **heads}

    def _try_to_save(self, monitor: Monitor) -> None:
        try:
            self.save()
        except OutputError as error:
            monitor.log(f"warning: {error}; training continues, the next checkpoint is tried in a while")

    def _one(self, batches: Batches, stop: StopRequest, monitor: Monitor) -> bool:
        """One step; whether any process was asked to stop."""
        begun = time.perf_counter()
        terms, waited, asked = self.update(self.step + 1, batches, stop)
        self.step += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        spent = time.perf_counter() - begun
        self.seconds += spent
        monitor.step(self.config.training.batch, spent - waited, waited)
        return asked

    def update(self, step: int, batches: Batches, stop: StopRequest) -> tuple[dict[str, float], float, bool]:
        """One optimizer step: the loss terms over all processes, seconds of waiting for data, whether to stop."""
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate(step)
        for optimizer in self._optimizers().values():
            optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        names: list[str] = []
        waited = 0.0
        for share in self.shares:
            batch, seconds = next(batches)
            waited += seconds
            names += batch.pairs()
            for name, term in self._backward(step, share, batch).items():
                sums[name] = sums[name] + term if name in sums else term
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, training.clip or math.inf)
        own = torch.stack([*sums.values(), norm, torch.full_like(norm, float(stop.asked))])
        finite = torch.isfinite(own).all()
        *values, length, stops = self.context.all_reduce_mean(own).tolist()  # the only wait for a GPU in a step
        terms = dict(zip(sums, values, strict=True))
        if not all(map(math.isfinite, (*values, length))):
            raise self._not_finite(step, terms, names, bool(finite))
        for optimizer in self._optimizers().values():
            optimizer.step()
        decay = min(training.ema, step / (step + 10.0))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), self.parameters, 1.0 - decay)
        return terms, waited, stops > 0

    def _backward(self, step: int, share: range, batch: Batch) -> dict[str, Tensor]:
        """Add the gradient of one share; its loss terms."""
        training, part = self.config.training, 1.0 / len(self.shares)
        torch.manual_seed(_seed(training.seed, step, share.start))  # of dropout
        draw = torch.Generator().manual_seed(_seed(training.seed, step, share.start, 0))
        quiet = share is not self.shares[-1] and isinstance(self.objective, DistributedDataParallel)
        with (
            self.objective.no_sync() if quiet else nullcontext(),  # type: ignore[operator]
            torch.autocast(batch.truth.device.type, torch.bfloat16, enabled=training.bf16),
        ):
            terms: dict[str, Tensor] = self.objective(batch, draw, step)
            total = torch.stack(list(terms.values())).sum() * part
        torch.autograd.backward(total)
        return {name: term.detach() * part for name, term in terms.items()}

    def _not_finite(self, step: int, terms: dict[str, float], names: list[str], finite: bool) -> GeoRefDiffError:
        """The error for a loss or gradient that is not finite; no weights were changed by this step."""
        gathered = self.context.all_gather((finite, names))
        guilty = [name for good, some in gathered if not good for name in some]
        state = find_state(self.out)
        what = "gradient" if all(map(math.isfinite, terms.values())) else "loss"
        values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        kept = f"{state} (step {read_progress(state).step})" if state else "none yet"
        return GeoRefDiffError(
            f"the {what} is not finite at step {step} ({values}) on {', '.join(guilty)}; the last good checkpoint is "
            f"{kept}: look at these data, or continue from there with a lower training.rate"
        )


def _compile(network: Any) -> None:
    """Have torch compile what takes the time: the guidance and the evaluation at a noise level."""
    network.forward = torch.compile(network.forward)
    if hasattr(network, "guidance"):
        network.guidance = torch.compile(network.guidance)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop and did so after a step; the message names its checkpoint."""


@dataclass(slots=True)
class StopRequest:
    """Whether somebody asked the run to stop, and when."""

    asked: bool = False
    when: float = 0.0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Notes Ctrl-C and SIGTERM instead of breaking off in mid-step; a second one breaks off.

    Signals only reach the main thread; elsewhere nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if request.asked and now - request.when > _ONE_REQUEST:
            raise KeyboardInterrupt
        request.asked, request.when = True, now

    before: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Have this thread, and threads begun meanwhile, take denormal numbers for zero; afterwards all is as before.

    Decayed moments of Adam become denormal, and these take a CPU many times as long as other numbers.
    """
    before = flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushed() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    least = sys.float_info.min
    return least / 2 == 0.0
