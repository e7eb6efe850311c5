"""What dask's workers do: plan once the scene is there, then compute blocks, one after the other in a process."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.engine.block import BlockComputer
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.raster.files import write_json_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.restore.models import open_model
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.xarray.store import Store

_LOG = logging.getLogger("geo_refdiff.xarray")


@dataclass(frozen=True)
class DeferredPlan:
    """An image to upscale.

    Attributes:
        token: names it; jobs of one token have the same pixels.
        scene, ref: to upscale, and to take detail from; the scene, and maybe reference and mask, are VRTs of `stores`.
        options: as of the command.
        stores: the arrays among the inputs.
        batch_size: windows restored together.
        threads: that torch computes with, as in the process that asked: they move last bits.
    """

    token: str
    scene: str
    ref: str | Path | None
    options: UpscaleOptions
    stores: tuple[Store, ...]
    batch_size: int
    threads: int

    @property
    def plan_file(self) -> Path:
        """Beside the scene's pixels."""
        return self.stores[0].folder / f"plan-{self.token}.json"


@dataclass(frozen=True)
class Ready:
    """A job whose inputs are there and whose plan is made."""

    job: DeferredPlan
    plan: Plan


def get_ready(job: DeferredPlan, written: Any) -> Ready:
    """Plan a job; call it when all chunks are written. A plan that was made before is taken over.

    Raises:
        GeoRefDiffError: as the command's.
    """
    del written
    with _CACHE.lock:
        if not job.plan_file.exists():
            for store in job.stores:
                store.finish()
            with gdal_env(), torch_settings(job.threads):
                planned = make_plan(job.scene, job.ref, job.options)
            for note in planned.notes:
                _LOG.info("%s", note)
            write_json_atomic(job.plan_file, planned.plan.to_dict())
            _CACHE.restorer = job.token, planned.restorer
        return Ready(job, check_inputs(read_plan(job.plan_file), _names(job)))


def get_block(ready: Ready, block_id: tuple[int, ...] = (0, 0, 0)) -> NDArray[Any]:
    """The pixels of a block, (band, y, x) in the output's dtype.

    Raises:
        GeoRefDiffError: as the command's.
    """
    layout = ready.plan.blocks
    index = block_id[-2] * layout.cols + block_id[-1]
    following = index + 1 if block_id[-1] + 1 < layout.cols else None
    with _CACHE.lock, gdal_env():
        computer = _CACHE.computer(ready)
        with torch_settings(int(ready.plan.software.get(THREADS, 0))):
            return np.ascontiguousarray(computer.compute(index, following).pixels)


def _names(job: DeferredPlan) -> list[str]:
    """What the inputs are called, as they were given and as absolute paths."""
    masks, clouds = job.options.mask.files, job.options.clouds.file
    names = [str(name) for name in (job.scene, job.ref, *masks, clouds) if name is not None]
    return [*names, *(str(Path(name).absolute()) for name in names)]


class _Cache:
    """What a process keeps between blocks: the model and the open files of the job that it worked at last."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.restorer: tuple[str, Restorer] | None = None
        self._open = ExitStack()
        self._at: tuple[str, BlockComputer] | None = None

    def computer(self, ready: Ready) -> BlockComputer:
        """That of the job; the one of another job is closed."""
        token = ready.job.token
        if self._at is None or self._at[0] != token:
            self._open.close()
            self._at = None
            check_inputs(ready.plan)
            if self.restorer is None or self.restorer[0] != token:
                self.restorer = token, _restorer(ready)
            computer = BlockComputer(ready.plan, self.restorer[1], ready.job.batch_size)
            self._at = token, self._open.enter_context(computer)
        return self._at[1]


_CACHE = _Cache()


def _restorer(ready: Ready) -> Restorer:
    """The plan's restorer, rebuilt in a process that did not plan.

    Raises:
        ModelError: the model here is not the plan's.
    """
    plan = ready.plan
    model = open_model(ready.job.options.sampling, device=plan.device, dtype=plan.dtype)
    if model.sha256 != plan.model.sha256:
        raise ModelError(
            f"model '{plan.model.name}' here has SHA-256 {model.sha256[:12]}, the plan was made with "
            f"{plan.model.sha256[:12]}; install the same model on all workers"
        )
    return plan.restorer(model)
