"""Where networks run, and how torch computes there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from geo_refdiff.errors import OptionError


def chosen_device(name: str) -> str:
    """ "cpu", "cuda" or "cuda:N", also for "auto", which is the GPU where there is one.

    Raises:
        OptionError: no such device here.
    """
    if check_device(name) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise OptionError(f"device '{name}': this machine has {count} CUDA devices; give --device cpu or auto")
    return name


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if given is None else [n.strip() for n in given.split(",")]
    return tuple(names[:count])


def check_device(name: str) -> str:
    """The name of a device, which need not be one of this machine.

    Raises:
        OptionError: it is none.
    """
    kind, _, number = name.partition(":")
    if name != "auto" and (kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal()))):
        raise OptionError(f"device '{name}': give auto, cpu, cuda or cuda:N")
    return name


def chosen_dtype(name: str, device: str, *, bfloat16: bool) -> str:
    """ "float32" or "bfloat16", also for "auto".

    Args:
        name: what is asked for.
        device: where the network runs.
        bfloat16: whether the model's results stay as good in it.
    """
    if name != "auto":
        return name
    fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if bfloat16 and fast else "float32"


@contextmanager
def torch_settings(threads: int = 0) -> Iterator[None]:
    """How torch computes pixels and weights: with `threads` threads (0 = as it is), and float32 without TF32.

    Small operations lose more by handing work to threads than they gain. TF32 is what torch uses for float32
    convolutions on a GPU unless configured otherwise: 10 bits of mantissa, up to 0.1 DN of uint8 where the sensor's
    view is computed. The fast way is bfloat16 inside the network.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before[1:]
