"""Models behind a URL: fetched once, pinned, there without a network; archives unpack nowhere but into their folder."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hub import Server, serving

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.commands.calibrate import calibrate
from geo_refdiff.diffusion import remote
from geo_refdiff.diffusion.checkpoint import (
    describe_model,
    load_denoiser,
    model_digest,
    read_config,
    read_weights,
    save_model,
)
from geo_refdiff.diffusion.remote import fetch_model
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.evaluate.methods import variants
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.sensor.sensor import SensorModel

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as running:
        yield running
    fetch_model.cache_clear()


@pytest.fixture
def hub(server: Server, tmp_path: Path, tiny_compact: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as the Hub: owner/name with a first and a second commit."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    files = {path.name: path.read_bytes() for path in tiny_compact.iterdir()} | {"evil.py": b"raise SystemExit"}
    config = json.loads(files["config.json"])
    later = files | {"config.json": json.dumps(config | {"halo": 24}).encode()}
    server.repositories["owner/name"] = {FIRST: files, SECOND: later}
    server.branches["owner/name", "main"] = SECOND
    server.branches["owner/name", "v1"] = FIRST
    return server


def opened(url: str) -> remote.RemoteModel:
    """As another process would fetch it."""
    fetch_model.cache_clear()
    return fetch_model(url)


def test_a_model_of_the_hub_is_pinned_kept_and_there_without_a_network(hub: Server, tiny_compact: Path) -> None:
    now = opened("hf://owner/name")
    assert (now.source, now.name) == (f"hf://owner/name@{SECOND}", "owner/name")
    assert read_config(now.folder).halo == 24
    assert not (now.folder / "evil.py").exists()
    before = opened("hf://owner/name@v1")
    assert before.source == f"hf://owner/name@{FIRST}"
    assert model_digest(before.folder) == model_digest(tiny_compact)
    weights = [path for path in hub.sent if path.endswith(".safetensors")]
    hub.sent.clear()
    assert opened("hf://owner/name").folder == now.folder
    assert opened(before.source).folder == before.folder
    assert not [path for path in hub.sent if path.endswith(".safetensors")]
    assert len(weights) == 1  # both commits share them
    hub.shutdown()
    hub.server_close()
    assert opened("hf://owner/name").folder == now.folder
    assert opened(before.source).folder == before.folder
    assert load_denoiser("hf://owner/name").halo == 24
    with pytest.raises(ModelError, match=r"hf://owner/other: the Hub cannot be reached .* not in the cache") as caught:
        opened("hf://owner/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hf://owner/unheard-of", "no such model, or a private one"),
        ("hf://owner/name@v9", "owner/name has no revision 'v9'"),
        ("hf://owner", "is called hf://owner/name"),
        ("hf://owner/name/file", "is called hf://owner/name"),
        ("hf://owner/bare", r"it has no config\.json"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_one_line(hub: Server, name: str, text: str) -> None:
    hub.repositories["owner/bare"] = {FIRST: {"pytorch_model.bin": b"x"}}
    hub.branches["owner/bare", "main"] = FIRST
    with pytest.raises(ModelError, match=text) as caught:
        opened(name)
    assert "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"pip install 'geo-refdiff\[hub\]'"):
        opened("hf://owner/name")


def packed(folder: Path, prefix: str = "model/", mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{prefix}{path.name}")
    return stream.getvalue()


def test_an_archive_is_fetched_once_and_again_when_it_changes(server: Server, tiny_compact: Path) -> None:
    for path, prefix, mode in (("/a/m.tar.gz", "x/", "w:gz"), ("/a/n.tgz", "", "w:gz"), ("/a/o.tar", "./", "w")):
        server.files[path] = packed(tiny_compact, prefix, mode)
        got = opened(server.url + path)
        assert {file.name for file in got.folder.iterdir()} == {file.name for file in tiny_compact.iterdir()}
        assert got.source == f"{server.url}{path}#sha256={model_digest(tiny_compact)}"
        assert not list(got.folder.parent.glob("fetching-*"))
    url, server.sent[:] = server.url + "/a/m.tar.gz", []
    before = opened(url)
    assert server.sent == []  # 304
    config = json.loads((tiny_compact / "config.json").read_text())
    (tiny_compact / "config.json").write_text(json.dumps(config | {"halo": 20}))
    server.files["/a/m.tar.gz"] = packed(tiny_compact)
    after = opened(url)
    assert read_config(after.folder).halo == 20
    assert before.folder.is_dir()
    assert opened(before.source).folder == before.folder  # pinned: as it was
    server.status = 503
    cached = opened(url)
    assert (cached.folder, cached.offline) == (after.folder, "the server says 503 Service Unavailable")
    with pytest.raises(ModelError, match=r"b\.tar\.gz: cannot be fetched .*503.* is not in the cache"):
        opened(f"{server.url}/b.tar.gz")


def test_several_processes_may_fetch_at_once(server: Server, tiny_compact: Path) -> None:
    server.files["/m.tar.gz"] = packed(tiny_compact)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(fetch_model.__wrapped__, [f"{server.url}/m.tar.gz"] * 6))
    assert len({model.folder for model in got}) == 1
    assert model_digest(got[0].folder) == model_digest(tiny_compact)
    assert sorted(path.name for path in got[0].folder.parent.iterdir()) == [model_digest(tiny_compact), "latest.json"]


def test_signatures_are_recorded_nowhere(server: Server, tiny_compact: Path, tmp_path: Path) -> None:
    server.files["/m.tar.gz"] = packed(tiny_compact)
    server.files |= {f"/m/{path.name}": path.read_bytes() for path in tiny_compact.iterdir()}
    for path in ("/m.tar.gz", "/m"):
        first, second = (opened(f"{server.url}{path}?token=SECRET{n}") for n in "12")
        assert first.folder == second.folder
        assert first.source == f"{server.url}{path}#sha256={model_digest(tiny_compact)}"
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]


def test_another_model_than_the_pin_says_is_refused(server: Server, tiny_compact: Path) -> None:
    server.files["/m.tar.gz"] = packed(tiny_compact)
    good = model_digest(tiny_compact)
    assert opened(f"{server.url}/m.tar.gz#sha256={good}").folder.name == good
    with pytest.raises(ModelError, match=f"another model .SHA-256 {good}. than the pinned one"):
        opened(f"{server.url}/m.tar.gz#sha256={'0' * 64}")
    with pytest.raises(ModelError, match="behind '#' stands sha256="):
        opened(f"{server.url}/m.tar.gz#v1")


@pytest.mark.parametrize("shard_bytes", [None, 2000])
def test_a_folder_of_safetensors(server: Server, tiny_compact: Path, tmp_path: Path, shard_bytes: int | None) -> None:
    folder = save_model(
        tmp_path / "m", read_config(tiny_compact), read_weights(tiny_compact), "", shard_bytes=shard_bytes
    )
    assert (len(list(folder.glob("model-*.safetensors"))) > 2) == (shard_bytes is not None)
    server.files |= {f"/models/m/{path.name}": path.read_bytes() for path in folder.iterdir()}
    url = f"{server.url}/models/m"
    got = opened(url)
    assert got.source == f"{url}#sha256={model_digest(folder)}"
    server.sent.clear()
    assert opened(url + "/").folder.name == model_digest(folder)
    again = opened(url)
    assert again.folder == got.folder
    server.shutdown()
    server.server_close()
    assert opened(url).folder == got.folder
    assert "refused" in opened(url).offline
    assert opened(got.source).offline == ""


def member(name: str, content: bytes = b"{}", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


HOSTILE: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "up": ([member("../config.json")], "leads out of its folder"),
    "far up": ([member("m/../../../config.json")], "leads out of its folder"),
    "absolute": ([member("/tmp/config.json")], "leads out of its folder"),
    "a link": ([member("config.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "is no model"),
    "a hard link": ([member("config.json", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "is no model"),
    "a device": ([member("config.json", b"", type=tarfile.CHRTYPE, devmajor=1)], "is no model"),
    "two folders": ([member("a/config.json"), member("b/model.safetensors")], "one folder with config.json"),
    "twice": ([member("config.json"), member("config.json")], "the same file twice"),
    "nothing": ([member("readme.txt")], "is no model"),
    "code alone": ([member("config.json"), member("model.py", b"x")], "has no weights"),
    "many": ([member(f"f{n}") for n in range(1100)], "more than a model"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_archives_come_to_nothing(server: Server, tmp_path: Path, name: str) -> None:
    members, text = HOSTILE[name]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    server.files["/evil.tar.gz"] = stream.getvalue()
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    with pytest.raises(ModelError, match=text) as caught:
        opened(f"{server.url}/evil.tar.gz")
    assert "\n" not in str(caught.value)
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def claiming(size: int) -> bytes:
    """An archive whose member, and whose extended header, claim to be large."""
    header = tarfile.TarInfo("config.json")
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no intact"),
        (b"\x1f\x8b" + bytes(100), "no intact"),
        (b"nothing of the kind", "no intact"),
        (claiming(1 << 40), "more than a model"),
        (claiming(1 << 30), "no intact"),
        (claiming(1 << 30).replace(b"config.json", b"config.long")[:156] + b"L" + bytes(355), "no intact"),
    ],
)
def test_damaged_archives(server: Server, content: bytes, text: str) -> None:
    server.files["/m.tar.gz"] = content
    with pytest.raises(ModelError, match=text) as caught:
        opened(f"{server.url}/m.tar.gz")
    assert "\n" not in str(caught.value)


def test_an_extended_header_of_any_length_takes_no_memory(server: Server) -> None:
    import gzip

    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    server.files["/bomb.tar.gz"] = gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(1 << 20))
    with pytest.raises(ModelError, match="no intact"):
        opened(f"{server.url}/bomb.tar.gz")


def test_a_file_beyond_the_limit_is_refused(
    server: Server, tiny_compact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_BYTES", 1000)
    monkeypatch.setattr(remote._get, "__defaults__", (1000,))
    server.files["/m.tar.gz"] = packed(tiny_compact)
    with pytest.raises(ModelError, match="larger than 1000 bytes"):
        opened(f"{server.url}/m.tar.gz")


def test_a_download_that_ends_early_is_not_kept(server: Server, tmp_path: Path, tiny_compact: Path) -> None:
    whole = packed(tiny_compact)
    server.files["/m.tar.gz"] = whole[: len(whole) // 2]
    with pytest.raises(ModelError, match="no intact"):
        opened(f"{server.url}/m.tar.gz")
    server.files["/m.tar.gz"] = whole
    assert opened(f"{server.url}/m.tar.gz").folder.is_dir()


def test_other_commands_take_the_same_names(hub: Server) -> None:
    (variant,) = variants(["hf://owner/name@v1"], EvaluateOptions.of(device="cpu"), [None])
    assert (variant.model.make(SensorModel(4), (0, 1, 2)).halo, variant.name) == (16, "name@v1")
    assert describe_model("hf://owner/name")["halo"] == 24
    with pytest.raises(OptionError, match="is a copy in the cache, which is no place for a calibration"):
        calibrate("hf://owner/name", "pairs.csv", scales=[4], runs=2, places=4)


def test_the_settings_of_a_plan_pin_the_model(hub: Server, make_raster: Callable[..., Path], tmp_path: Path) -> None:
    scene = make_raster("scene.tif", np.full((3, 24, 24), 9, np.uint8))
    out = tmp_path / "out.tif"
    command = ["upscale", str(scene), "--scale", "4", "-o", str(out), "--model", "hf://owner/name", "--plan-only"]
    assert run(command) == 0
    assert tomllib.loads((tmp_path / "out.run.toml").read_text())["model"] == f"hf://owner/name@{SECOND}"


def test_an_output_says_which_commit_made_it(hub: Server, make_raster: Callable[..., Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 24, 24), dtype=np.uint8)
    scene = make_raster("scene.tif", pixels)
    upscale(scene, model="hf://owner/name", scale=4, out=tmp_path / "out.tif", device="cpu", products=["stac"])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        tags = dataset.tags()
    assert tags["GEO_REFDIFF_MODEL"] == "owner/name"
    assert tags["GEO_REFDIFF_MODEL_SOURCE"] == f"hf://owner/name@{SECOND}"
    item = json.loads((tmp_path / "out.json").read_text())
    assert item["properties"]["geo_refdiff:model"]["source"] == f"hf://owner/name@{SECOND}"
