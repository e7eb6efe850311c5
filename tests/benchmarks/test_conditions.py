"""The benchmark asks for conditions that an evaluation can take, and a line of its table says what was measured."""

from __future__ import annotations

import pytest

from benchmarks.conditions import CONDITIONS, FIGURES, row
from geo_refdiff.evaluate.options import EvaluateOptions


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_can_be_asked_for(name: str) -> None:
    data = EvaluateOptions.of(**CONDITIONS[name]).data
    assert data.tile * data.average in (240, 256)
    assert data.tile % 16 == 0  # what the model and the networks that judge take


def test_a_line_of_the_table() -> None:
    figures = {key: 0.5 for key in FIGURES if key != "efflp_changed"}
    method = {
        "means": figures | {"efflp": 0.61234},
        "standard_errors": figures | {"efflp": 0.01},
        "fd": 187.4,
        "fd_standard_error": 12.2,
    }
    told = row("8x", "**new**", method)
    assert told == ["8x", "**new**", "0.50", "0.500", "0.612 ± 0.010", "-", "0.50", "0.50", "0.50", "187 ± 12"]
