"""Weights of the networks that judge images, from files that the user names; nothing in a weights file is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geo_refdiff.errors import InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict: .safetensors, or a file of `torch.save` read by torch's weights-only reader.

    Raises:
        InputError: no such file, damaged, or something else than a dict of tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the weights that you have downloaded")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: no state dict of plain tensors can be read from it ({type(error).__name__}); "
            f"fetch it again, or save it anew with torch.save(model.state_dict(), ...)"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict (names and tensors)")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path, layout: str) -> None:
    """Load a network's parameters and buffers by name; other tensors in `state` are left alone.

    Args:
        layout: what the file should be, for the message.

    Raises:
        InputError: a tensor is missing, or has another shape.
    """
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing = [k for k in wanted if k not in state]
    if missing:
        raise InputError(
            f"{path}: not {layout}: it lacks {missing[0]}"
            + (f" and {len(missing) - 1} more tensors" if len(missing) > 1 else "")
        )
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise InputError(f"{path}: not {layout}: {key} is {tuple(state[key].shape)}, not {tuple(value.shape)}")
    network.load_state_dict({k: state[k] for k in wanted}, strict=False)
    network.eval().requires_grad_(False)
