"""Sums of bands."""

import numpy as np
import pytest

from geo_refdiff.raster.statistics import EMPTY, BandSums, dump_sums, load_sums


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_sums_of_parts_are_the_sums_of_the_whole(dtype: str) -> None:
    rng = np.random.default_rng(0)
    band = rng.uniform(1, 200, (40, 50)).astype(dtype)
    valid = rng.uniform(size=band.shape) > 0.3
    parts = EMPTY
    for part in (slice(0, 7), slice(7, 40)):
        parts = parts.plus(load_sums(dump_sums([BandSums.of(band[part], valid[part])]))[0])
    values = band[valid].astype(float)
    assert parts.count == values.size
    assert (parts.minimum, parts.maximum) == (values.min(), values.max())
    assert parts.total == pytest.approx(values.sum())
    assert parts.squares == pytest.approx((values**2).sum())
    assert BandSums.of(band, np.zeros_like(valid)) == EMPTY
