"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_refdiff.errors import OutputError
from geo_refdiff.raster.files import atomic_path, check_free, write_bytes_atomic, write_json_atomic


def test_success_replaces_and_failure_leaves_the_old(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    write_json_atomic(final, {"ö": [1, 2.5]})
    assert final.read_text(encoding="utf-8") == '{\n  "ö": [\n    1,\n    2.5\n  ]\n}\n'

    def interrupted() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".json"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert final.read_text(encoding="utf-8").startswith("{")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(final, float("nan"))


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/a\.bin: cannot be written: its folder does not exist"):
        write_bytes_atomic(tmp_path / "nowhere" / "a.bin", b"1")


def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_bytes_atomic(tmp_path / "a.bin", b"1")


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    fifo, link, file = tmp_path / "fifo", tmp_path / "link", tmp_path / "file"
    os.mkfifo(fifo)
    link.symlink_to("/dev/null")
    for special in (fifo, link, Path("/dev/stdout"), Path("/dev/none"), Path("/proc/self/fd/1")):
        with pytest.raises(OutputError, match="is no regular file, which is never replaced; choose a file name"):
            write_bytes_atomic(special, b"1")
        with pytest.raises(OutputError, match="is no regular file"):
            check_free(special, True)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert link.is_symlink()
    assert not Path("/dev/none").exists()
    file.write_bytes(b"0")
    (tmp_path / "to_file").symlink_to(file)
    write_bytes_atomic(tmp_path / "to_file", b"1")
    assert (tmp_path / "to_file").read_bytes() == b"1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="disk is full"):
        write_bytes_atomic(small_disk / "a.bin", bytes(3 * 2**20))
    assert list(small_disk.iterdir()) == []


def test_publishing_to_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    import numpy as np
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from geo_refdiff.raster.cog import publish_cog
    from geo_refdiff.raster.vrt import VirtualRaster, write_block, write_vrt
    from geo_refdiff.raster.window import Window

    grid = GeoBox((1100, 1100), Affine(1, 0, 500000, 0, -1, 4600000), "EPSG:32631")
    noise = np.random.default_rng(0).integers(0, 255, (3, 1100, 1100), np.uint8)
    write_block(tmp_path / "b.tif", noise, None, grid.affine, "EPSG:32631")
    write_vrt(tmp_path / "m.vrt", VirtualRaster(grid, "uint8", 3, (("b.tif", Window(0, 0, 1100, 1100)),)))
    with pytest.raises(OutputError, match="disk is full"):
        publish_cog(tmp_path / "m.vrt", small_disk / "out.tif")
    assert list(small_disk.iterdir()) == []
    with pytest.raises(OutputError, match="disk is full"):
        write_block(small_disk / "b.tif", noise, None, grid.affine, "EPSG:32631")
    assert list(small_disk.iterdir()) == []
