import json
from pathlib import Path

import pytest

from geo_refdiff.options import SamplingOptions
from geo_refdiff.restore.models import Model, open_model
from geo_refdiff.sensor.sensor import SensorModel


def unused(*_: object) -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("ratio", "scales", "expected"),
    [
        (8.0, (), 8),
        (7.39, (), 8),
        (7.39, tuple(range(4, 17)), 8),
        (3.0, (), 3),
        (10.05, tuple(range(4, 17)), 10),
        (3.0, tuple(range(4, 17)), 4),
        (40.0, (4, 8, 16), 16),
        (1.0, (), 2),
        (500.0, (), 64),
        (5.0, (3, 6), 6),
    ],
)
def test_the_scale_that_suits_a_reference(ratio: float, scales: tuple[int, ...], expected: int) -> None:
    assert Model("test", unused, scales=scales).nearest_scale(ratio) == expected


def test_a_published_sampler_draws_noise_where_it_churns(tiny_published: Path) -> None:
    model = open_model(
        SamplingOptions(model=str(tiny_published), sampler="published", steps=4), device="cpu", dtype="float32"
    )
    assert model.make(SensorModel(4), (0, 1, 2)).stochastic
    config = json.loads((tiny_published / "config.json").read_text())
    config["sampler"]["S_churn"] = 0.0
    (tiny_published / "config.json").write_text(json.dumps(config))
    quiet = open_model(
        SamplingOptions(model=str(tiny_published), sampler="published", steps=4), device="cpu", dtype="float32"
    )
    assert not quiet.make(SensorModel(4), (0, 1, 2)).stochastic
