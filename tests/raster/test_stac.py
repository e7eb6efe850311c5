"""When a raster was taken, as its metadata tell."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_refdiff.raster.stac import acquired


@pytest.mark.parametrize(
    ("tag", "text", "want"),
    [
        ("TIFFTAG_DATETIME", "2021:05:03 10:11:12", datetime(2021, 5, 3, 10, 11, 12, tzinfo=UTC)),
        ("ACQUISITIONDATETIME", "2021-05-03T10:11:12Z", datetime(2021, 5, 3, 10, 11, 12, tzinfo=UTC)),
        ("ACQUISITIONDATETIME", "2021-05-03T10:11:12.345Z", datetime(2021, 5, 3, 10, 11, 12, 345_000, UTC)),
        ("datetime", "2021-05-03T10:11:12+00:00", datetime(2021, 5, 3, 10, 11, 12, tzinfo=UTC)),
        ("datetime", "2021-05-03T23:11:12-05:00", datetime(2021, 5, 4, 4, 11, 12, tzinfo=UTC)),
        ("datetime", "2021-05-03", datetime(2021, 5, 3, tzinfo=UTC)),
        ("datetime", "0001-01-01T00:00:00+10:00", None),
        ("datetime", "0000:00:00 00:00:00", None),
        ("datetime", "in May", None),
    ],
)
def test_times_of_acquisition(make_raster: Any, tag: str, text: str, want: datetime | None) -> None:
    path = make_raster("s.tif", np.ones((1, 4, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{tag: text})
    assert acquired(str(path)) == want
