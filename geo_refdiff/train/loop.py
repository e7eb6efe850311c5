"""The training loop. Every step is a function of the configuration, the data and the weights before it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import GeoRefDiffError, OutputError
from geo_refdiff.train.config import TrainConfig, TrainingConfig
from geo_refdiff.train.distributed import Team
from geo_refdiff.train.feed import Lane, feed
from geo_refdiff.train.monitor import Monitor
from geo_refdiff.train.objective import Objective
from geo_refdiff.train.samples import Batch, SampleMaker
from geo_refdiff.train.state import Progress, find_state, load_state, read_progress, save_state
from geo_refdiff.train.stopping import Interrupted, StopRequest, stop_request

Feed = Generator[tuple[Batch, float], None, None]
Validate = Callable[[nn.Module, int], dict[str, float]]


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Of step 1, 2, ...: linear warm-up, constant, cosine to 0 over the last share `decay` of the steps."""
    rate = config.rate * min(1.0, step / max(config.warmup, 1))
    if config.decay == 0:
        return rate
    left = (config.steps - step) / (config.decay * config.steps)
    return rate if left >= 1.0 else rate * 0.5 * (1.0 - math.cos(math.pi * max(left, 0.0)))


class Trainer:
    """One run: network, averaged network, optimizer and where it stands.

    Args:
        denoiser: the network to train, float32.
        config: of the run.
        maker: of samples.
        fingerprint: of the data.
        out: folder of the run.
        team: this process's place.

    Raises:
        OptionError: a batch that cannot be shared by the processes alike.
    """

    def __init__(
        self, denoiser: Denoiser, config: TrainConfig, maker: SampleMaker, fingerprint: str, out: Path, team: Team
    ) -> None:
        self.config, self.maker, self.fingerprint, self.out, self.team = config, maker, fingerprint, out, team
        training = config.training
        self.shares = team.shares(training.batch, training.accumulate)
        memory = torch.channels_last if training.channels_last else torch.contiguous_format
        denoiser.to(device=team.device).train()
        denoiser.network.to(memory_format=memory)  # type: ignore[call-overload]
        self.denoiser = denoiser
        self.average: nn.Module = copy.deepcopy(denoiser.network).eval().requires_grad_(False)
        objective = Objective(denoiser, training, config.perception)
        self.heads = objective.heads
        self.objective: nn.Module = objective
        on_gpu = team.device.startswith("cuda")
        if training.compile == "on" or (training.compile == "auto" and on_gpu):
            _compile(denoiser.network)
        if team.world > 1:
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
        """Go on where the newest checkpoint stands; its step, 0 where there is none."""
        state = find_state(self.out)
        if state is None:
            return 0
        progress = read_progress(state)
        load_state(state, self._networks(), self._optimizers())
        self.step, self.seconds, self.sums = progress.step, progress.seconds, dict(progress.sums)
        return self.step

    def run(self, monitor: Monitor, validate: Validate | None = None) -> None:
        """Train to the last step; checkpoints, lines of the log and validations on the way.

        A checkpoint that cannot be written is told, and tried again with the next; the last one must be.

        Raises:
            GeoRefDiffError: loss or gradient are not finite; names step, files and the last good checkpoint.
            Interrupted: asked to stop; a checkpoint was written.
            OutputError: the last checkpoint cannot be written.
        """
        training, report = self.config.training, self.config.report
        saved = time.monotonic()
        jobs = ((step, share) for step in range(self.step + 1, training.steps + 1) for share in self.shares)
        coming = feed(self.maker, jobs, training.workers, Lane(self.team.device))
        with closing(coming), stop_request() as stop:
            while self.step < training.steps:
                asked = self._one(coming, stop, monitor)
                step, last = self.step, self.step == training.steps
                if step % report.log_steps == 0 or last:
                    count = step % report.log_steps or report.log_steps
                    monitor.line(step, {k: v / count for k, v in self.sums.items()}, learning_rate(step, training))
                    self.sums = {}
                if validate is not None and (last or (report.validate_steps and step % report.validate_steps == 0)):
                    monitor.validation(step, validate(self.average, step))
                if self.team.leads and (last or asked):
                    self.save()
                elif self.team.leads and time.monotonic() - saved > 60.0 * report.save_minutes:
                    self._try_to_save(monitor)
                    saved = time.monotonic()
                if asked and not last:
                    self.team.wait()
                    raise Interrupted(f"stopped after step {step}, kept in {find_state(self.out)}; go on with --resume")

    def save(self) -> None:
        """Write a checkpoint (OutputError where it cannot be)."""
        progress = Progress(
            self.step,
            self.seconds,
            self.sums,
            self.config.to_dict(),
            self.fingerprint,
            self.team.world,
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
            monitor.tell(f"warning: {error}; training goes on, the next checkpoint is tried in a while")

    def _one(self, coming: Feed, stop: StopRequest, monitor: Monitor) -> bool:
        """One step; whether any process was asked to stop."""
        begun = time.perf_counter()
        terms, waited, asked = self.update(self.step + 1, coming, stop)
        self.step += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        spent = time.perf_counter() - begun
        self.seconds += spent
        monitor.step(self.config.training.batch, spent - waited, waited)
        return asked

    def update(self, step: int, coming: Feed, stop: StopRequest) -> tuple[dict[str, float], float, bool]:
        """One optimizer step: the loss terms over all processes, seconds of waiting for data, whether to stop."""
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        for optimizer in self._optimizers().values():
            optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        names: list[str] = []
        waited = 0.0
        for share in self.shares:
            batch, seconds = next(coming)
            waited += seconds
            names += batch.pairs()
            for name, term in self._backward(step, share, batch).items():
                sums[name] = sums[name] + term if name in sums else term
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, training.clip or math.inf)
        own = torch.stack([*sums.values(), norm, torch.full_like(norm, float(stop.asked))])
        fine = torch.isfinite(own).all()
        *values, length, stops = self.team.mean(own).tolist()  # the only time in a step that a GPU is waited for
        terms = dict(zip(sums, values, strict=True))
        if not all(map(math.isfinite, (*values, length))):
            raise self._lost(step, terms, names, bool(fine))
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

    def _lost(self, step: int, terms: dict[str, float], names: list[str], fine: bool) -> GeoRefDiffError:
        """What to say when loss or gradient are not finite: no weights were changed by this step."""
        told = self.team.gather((fine, names))
        guilty = [name for good, some in told if not good for name in some]
        state = find_state(self.out)
        what = "gradient" if all(map(math.isfinite, terms.values())) else "loss"
        values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        kept = f"{state} (step {read_progress(state).step})" if state else "none yet"
        return GeoRefDiffError(
            f"the {what} is not finite at step {step} ({values}) on {', '.join(guilty)}; the last good checkpoint is "
            f"{kept}: look at these data, or go on from there with a lower training.rate"
        )


def _compile(network: Any) -> None:
    """Have torch compile what takes the time: the guidance and the evaluation at a noise level."""
    network.forward = torch.compile(network.forward)
    if hasattr(network, "guidance"):
        network.guidance = torch.compile(network.guidance)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
