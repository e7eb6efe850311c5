"""Makes files as the public code writes them, and hostile ones."""

from __future__ import annotations

import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from geo_refdiff.nn.published import PublishedUNet

SMALL = {
    "img_resolution": 16,
    "img_channels": 3,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.2,
}


def small_network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PublishedUNet(**SMALL)
        for value in network.parameters():
            nn.init.normal_(value, std=0.1)
    return network


def persistence(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for the public code's `torch_utils.persistence`, which must exist for pickling only."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("a persistent object was rebuilt")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    return _reconstruct_persistent_obj


class Recorded:
    """Pickles as the public code's modules do: a call with the module's source and state."""

    def __init__(self, module: nn.Module, rebuild: Any, source: str, **extra: Any) -> None:
        self.module, self.rebuild, self.source, self.extra = module, rebuild, source, extra

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.module.__dict__) | self.extra
        state["_modules"] = {
            name: child if not list(child.children()) else Recorded(child, self.rebuild, self.source)
            for name, child in self.module._modules.items()
            if child is not None
        }
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "X", "state": state}
        return self.rebuild, (meta,)


def publish(path: Path, monkeypatch: pytest.MonkeyPatch, source: str = "", *, legacy: bool = False) -> nn.Module:
    """Write a published file; its ema network."""
    rebuild = persistence(monkeypatch)
    ema, net = small_network(1), small_network(2)
    content = {
        "optimizer_state": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "step": 17,
        "ema": Recorded(ema, rebuild, source, sigma_data=0.5, sigma_min=0, img_resolution=16),
        "net": Recorded(net, rebuild, source),
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.delitem(sys.modules, "torch_utils")
    monkeypatch.delitem(sys.modules, "torch_utils.persistence")
    return ema


def zipped(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A torch.save zip file around a pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, blob in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", blob)
        archive.writestr("archive/version", "3\n")
    return path
