import sys

from geo_refdiff.raster.process import steady_heap


def test_it_takes_effect_where_there_is_glibc() -> None:
    assert steady_heap() in ((True,) if sys.platform == "linux" and _glibc() else (True, False))


def _glibc() -> bool:
    import platform

    return platform.libc_ver()[0] == "glibc"
