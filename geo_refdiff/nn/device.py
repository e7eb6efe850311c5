"""Where networks run."""

from __future__ import annotations

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


def check_device(name: str) -> str:
    """The name of a device, which need not be one of this machine.

    Raises:
        OptionError: it is none.
    """
    kind, _, number = name.partition(":")
    if name != "auto" and (kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal()))):
        raise OptionError(f"device '{name}': give auto, cpu, cuda or cuda:N")
    return name
