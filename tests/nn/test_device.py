"""The device that is asked for, or a line that says which there are."""

from __future__ import annotations

import pytest
import torch

from geo_refdiff.errors import OptionError
from geo_refdiff.nn.device import chosen_device, torch_settings, visible_gpus


@pytest.fixture(params=[0, 2])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count = int(request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


def test_a_device_that_is_there_is_taken(gpus: int) -> None:
    assert chosen_device("auto") == ("cuda" if gpus else "cpu")
    assert chosen_device("cpu") == "cpu"
    for name in ("cuda", "cuda:0", "cuda:1") if gpus else ():
        assert chosen_device(name) == name


def test_others_are_refused_in_one_line(gpus: int) -> None:
    for name in ("gpu", "cpu:1", "cuda:x", "cuda:-1", "cudahh", "mps"):
        with pytest.raises(OptionError, match=f"device '{name}': give auto, cpu, cuda or cuda:N"):
            chosen_device(name)
    for name in ["cuda:2"] + ["cuda"] * (gpus == 0):
        with pytest.raises(OptionError, match=f"'{name}': this machine has {gpus} CUDA devices; give --device cpu"):
            chosen_device(name)


def test_gpus_are_named_as_the_environment_names_them(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ("0", "1")[:gpus]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8932f937,7")
    assert visible_gpus() == ("3", "GPU-8932f937")[:gpus]  # torch counts those that are there


def _tf32() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_settings_of_torch_hold_inside_alone() -> None:
    before = torch.get_num_threads(), _tf32()
    with torch_settings(3):
        assert (torch.get_num_threads(), _tf32()) == (3, (False, False))
        with torch_settings():
            assert (torch.get_num_threads(), _tf32()) == (3, (False, False))
    assert (torch.get_num_threads(), _tf32()) == before
    assert before[1][0]  # torch's own default: TF32 in convolutions
