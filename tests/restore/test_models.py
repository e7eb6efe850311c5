import pytest

from geo_refdiff.restore.models import Model


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
