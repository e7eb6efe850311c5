"""Published files come in whole; hostile ones come to nothing."""

from __future__ import annotations

import copyreg
import os
import pickle
import random
import struct
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from published_files import SMALL, persistence, publish, small_network, zipped

from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.foreign import import_published, load_inert, read_foreign
from geo_refdiff.errors import ModelError, OutputError
from geo_refdiff.records import plain


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """A file that hostile pickles make when they run."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    return path


def test_import_of_a_published_file(tmp_path, monkeypatch, canary):
    source = f"open({str(canary)!r}, 'w').close()"
    network = publish(tmp_path / "published.pt", monkeypatch, source)
    folder = import_published(tmp_path / "published.pt", tmp_path / "model")
    assert not canary.exists()
    assert "torch_utils" not in sys.modules
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    denoiser = load_denoiser(folder)
    for key, value in network.state_dict().items():
        assert torch.equal(denoiser.network.state_dict()[key], value)
    for key, value in SMALL.items():
        assert plain(denoiser.config)[key] == value
    assert denoiser.config.provenance.branch == "ema"
    assert denoiser.config.provenance.step == 17
    assert denoiser.sigma_data == 0.5
    assert denoiser.config.sampler.S_churn == 40


def test_import_of_plain_state_dicts(tmp_path):
    network = small_network()
    state = network.state_dict()
    for number, content in enumerate(
        [
            state,
            {"net": state},
            {"module." + key: value for key, value in state.items()},
            {key.removeprefix("model."): value for key, value in state.items()},
            {"ema": network.half().state_dict()},
        ]
    ):
        torch.save(content, tmp_path / "state.pt")
        found, config = read_foreign(tmp_path / "state.pt")
        assert found.keys() == state.keys(), number
        assert config.channel_mult == (1, 2)


def test_views_of_a_shared_storage(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save({"a": whole[1:3, ::2], "b": whole.t(), "c": torch.zeros(0, 3), "d": torch.tensor(7)}, tmp_path / "v.pt")
    content = load_inert(tmp_path / "v.pt").content
    assert torch.equal(content["a"], whole[1:3, ::2])
    assert torch.equal(content["b"], whole.t())
    assert content["c"].shape == (0, 3)
    assert content["d"].item() == 7


class Runs:
    """Runs when it is unpickled in the ordinary way."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


TOUCH = "open(__import__('os').environ['CANARY'], 'w').close()"


def opcodes(tail: bytes) -> bytes:
    return b"\x80\x02" + tail + b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HOSTILE = {
    "os.system": lambda: pickle.dumps(Runs(os.system, 'touch "$CANARY"')),
    "eval": lambda: pickle.dumps(Runs(eval, TOUCH), protocol=0),
    "exec, protocol 5": lambda: pickle.dumps(Runs(exec, TOUCH), protocol=5),
    "nested": lambda: pickle.dumps({"ema": [{"x": (Runs(exec, TOUCH),)}]}),
    "result called again": lambda: opcodes(
        b"c__builtin__\ngetattr\n"
        + b"c__builtin__\n__import__\n"
        + text("os")
        + b"\x85R"
        + text("system")
        + b"\x86R"
        + text('touch "$CANARY"')
        + b"\x85R"
    ),
    "INST": lambda: b"(S'touch \"$CANARY\"'\nios\nsystem\n.",
    "OBJ": lambda: b"(cos\nsystem\nS'touch \"$CANARY\"'\no.",
    "NEWOBJ": lambda: opcodes(b"cos\nsystem\n" + text('touch "$CANARY"') + b"\x85\x81"),
    "NEWOBJ_EX": lambda: b"\x80\x04cos\nsystem\n" + text('touch "$CANARY"') + b"\x85}\x92.",
    "STACK_GLOBAL": lambda: b"\x80\x04" + text("os") + text("system") + b"\x93" + text('touch "$CANARY"') + b"\x85R.",
    "BUILD with __setstate__": lambda: opcodes(
        b"c__main__\nX\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb" + text('touch "$CANARY"') + b"b"
    ),
    "copyreg._reconstructor": lambda: opcodes(
        b"ccopyreg\n_reconstructor\nctypes\nFunctionType\nc__builtin__\nobject\nN\x87R" + text(TOUCH) + b"b"
    ),
    "EXT1": lambda: opcodes(b"\x82\xf0" + text('touch "$CANARY"') + b"\x85R"),
    "EXT4": lambda: opcodes(b"\x84\xf0\x00\x00\x00" + text('touch "$CANARY"') + b"\x85R"),
    "rebuild with a hostile tensor": lambda: opcodes(
        b"ctorch._utils\n_rebuild_parameter\ncos\nsystem\n" + text('touch "$CANARY"') + b"\x85R\x89N\x87R"
    ),
    "persistent id that runs": lambda: opcodes(b"cos\nsystem\n" + text('touch "$CANARY"') + b"\x85RQ"),
    "import for its effect": lambda: opcodes(b"cantigravity\nfly\n)R"),
    "numpy file": lambda: opcodes(b"cnumpy\nfromfile\n" + text("/etc/passwd") + b"\x85R"),
}


@pytest.fixture
def extension():
    """A registered extension code, in the interpreter's own cache, too: the plain unpickler would call it."""
    copyreg.add_extension("os", "system", 0xF0)
    copyreg._extension_cache[0xF0] = os.system  # type: ignore[attr-defined]
    yield
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg._extension_cache.pop(0xF0, None)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_pickles_run_nothing(tmp_path, canary, name):
    modules = set(sys.modules)
    with pytest.raises(ModelError) as caught:
        import_published(zipped(tmp_path / "evil.pt", HOSTILE[name]()), tmp_path / "model")
    assert not canary.exists()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
    assert "antigravity" not in set(sys.modules) - modules


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", ["os.system", "eval", "exec, protocol 5", "EXT1", "INST", "STACK_GLOBAL"])
def test_the_hostile_pickles_are_hostile(canary, name):
    """Otherwise the test above proves nothing."""
    pickle.loads(HOSTILE[name]())
    assert canary.exists()


def test_the_error_names_what_was_asked_for(tmp_path, canary):
    with pytest.raises(ModelError, match=r"it refers to posix\.system; nothing in it was executed"):
        read_foreign(zipped(tmp_path / "evil.pt", pickle.dumps(Runs(os.system, "true"), protocol=2)))


def test_a_file_of_an_old_torch_says_so(tmp_path, monkeypatch, canary):
    publish(tmp_path / "old.pt", monkeypatch, f"open({str(canary)!r}, 'w').close()", legacy=True)
    with pytest.raises(ModelError, match=r"torch before 1\.6 .which has to be saved again"):
        read_foreign(tmp_path / "old.pt")
    assert not canary.exists()


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_legacy_files_run_nothing(tmp_path, canary, name):
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    (tmp_path / "evil.pt").write_bytes(head + HOSTILE[name]() + pickle.dumps([], 2))
    with pytest.raises(ModelError):
        read_foreign(tmp_path / "evil.pt")
    (tmp_path / "evil.pt").write_bytes(HOSTILE[name]())
    with pytest.raises(ModelError):
        read_foreign(tmp_path / "evil.pt")
    assert not canary.exists()


def test_network_beside_hostile_data(tmp_path, monkeypatch, canary):
    """What is inert comes in and stays so; a module that torch blocks keeps the whole file out."""
    from published_files import Recorded

    rebuild = persistence(monkeypatch)
    network = small_network()
    content = {"ema": Recorded(network, rebuild, TOUCH, forward=Runs(exec, TOUCH)), "hook": Runs(eval, TOUCH)}
    torch.save(content, tmp_path / "mixed.pt")
    found, _ = read_foreign(tmp_path / "mixed.pt")
    assert torch.equal(found["model.map_layer0.weight"], network.state_dict()["model.map_layer0.weight"])
    torch.save(content | {"hook": Runs(os.system, 'touch "$CANARY"')}, tmp_path / "mixed.pt")
    with pytest.raises(ModelError, match="nothing in it was executed"):
        read_foreign(tmp_path / "mixed.pt")
    assert not canary.exists()


def number(value: str) -> bytes:
    raw = int(value).to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def storage(count: str, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(persistent: bytes, offset: str, shape: str, stride: str) -> bytes:
    def numbers(values: str) -> bytes:
        return b"(" + b"".join(map(number, values.split())) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + persistent
        + number(offset)
        + numbers(shape)
        + numbers(stride)
        + b"\x89NtR"
    )


def holding(value: bytes) -> bytes:
    return opcodes(b"}" + text("map_layer0.weight") + value + b"s")


@pytest.mark.parametrize(
    "value",
    [
        tensor(storage("4"), "0", "5", "1"),
        tensor(storage("4"), "1", "4", "1"),
        tensor(storage("4"), "-1", "2", "1"),
        tensor(storage("4"), "0", "2 2", "4 1"),
        tensor(storage("4"), "0", "2", "-1"),
        tensor(storage("4"), "0", "1000000000000", "0"),
        tensor(storage("4"), "0", "2 2", "1"),
        tensor(storage("4"), "0", "9223372036854775807", "1"),
        tensor(storage("1000000000000"), "0", "4", "1"),
        tensor(storage("1000000000000"), "0", "1000000000000", "1"),
        tensor(storage("-4"), "0", "4", "1"),
        tensor(storage("4", key="../../etc/passwd"), "0", "4", "1"),
        tensor(storage("4", key="missing"), "0", "4", "1"),
        tensor(storage("4", kind="system"), "0", "4", "1"),
        tensor(storage("16", kind="DoubleStorage"), "0", "16", "1"),
        tensor(b"N", "0", "4", "1"),
        tensor(storage("4"), "0", "1 1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1 1"),
    ],
)
def test_tensors_that_make_no_sense(tmp_path, value):
    path = zipped(tmp_path / "bad.pt", holding(value), {"0": bytes(16)})
    with pytest.raises(ModelError):
        read_foreign(path)


def test_a_tensor_that_repeats_its_storage_is_no_memory_bomb(tmp_path):
    state = dict(small_network().state_dict())
    state["model.map_layer1.bias"] = torch.zeros(1).expand(10**12)
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(ModelError, match="larger together"):
        read_foreign(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02(.",
        b"\x80\x02R.",
        b"\x80\x02h\x05.",
        b"\x80\x02}N}s" + b"}" * 3 + b"ss.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.",
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x05\x97.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.",
        b"\x80\x02]" + b"]a" * 10 + b"b" * 20 + b".",
        b"not a pickle at all",
    ],
)
def test_damaged_pickles(tmp_path, pickled):
    with pytest.raises(ModelError):
        read_foreign(zipped(tmp_path / "bad.pt", pickled))


def test_modules_in_a_circle(tmp_path):
    meta = b"}" + text("state") + b"}" + text("_modules") + b"}q\x01ss"
    call = (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
        + meta
        + b"\x85Rq\x02h\x01"
        + text("x")
        + b"h\x02sh\x02"
    )
    with pytest.raises(ModelError, match="nested too deeply"):
        read_foreign(zipped(tmp_path / "circle.pt", opcodes(call)))


def test_archives_that_are_none(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    for content in (b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(100), b"ustar" + bytes(1000), b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            read_foreign(path)
    with pytest.raises(ModelError, match=r"compressed|damaged"):
        read_foreign(zipped(path, b"N." + bytes(10_000_000), compression=zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ModelError, match=r"no data\.pkl"):
        read_foreign(path)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        read_foreign(tmp_path / "missing.pt")
    with pytest.raises(ModelError, match="is a folder; a model folder needs no import"):
        read_foreign(tmp_path)


def test_a_size_that_lies_in_the_directory(tmp_path):
    path = zipped(tmp_path / "a.pt", holding(tensor(storage("4"), "0", "4", "1")), {"0": bytes(16)})
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x01\x02")
    struct.pack_into("<II", raw, at + 20, 2**31, 2**31)
    path.write_bytes(raw)
    with pytest.raises(ModelError, match="larger than the file"):
        read_foreign(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_and_mutated_files(tmp_path, monkeypatch, canary, legacy):
    """Whatever bytes change, the outcome is tensors or a ModelError."""
    publish(tmp_path / "p.pt", monkeypatch, TOUCH, legacy=legacy)
    whole = (tmp_path / "p.pt").read_bytes()
    draw = random.Random(7)
    damaged = tmp_path / "damaged.pt"
    outcomes = set()
    for trial in range(60):
        raw = bytearray(whole)
        if trial % 3 == 0:
            del raw[draw.randrange(len(raw)) :]
        else:
            for _ in range(draw.choice([1, 4, 30])):
                raw[draw.randrange(min(len(raw), 30_000) if trial % 2 else len(raw))] = draw.randrange(256)
        damaged.write_bytes(raw)
        try:
            read_foreign(damaged)
            outcomes.add("tensors")
        except ModelError as error:
            outcomes.add("error" if "\n" not in str(error) else "an error of several lines")
    assert outcomes <= {"tensors", "error"}
    assert "error" in outcomes
    assert not canary.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("model.dec.8x8_in0.norm2.weight"), "missing model.dec.8x8_in0.norm2.weight"),
        (lambda s: s.update({"model.extra": torch.zeros(2)}), "unexpected model.extra"),
        (lambda s: s.update({"model.map_layer1.bias": torch.zeros(2)}), "map_layer1.bias is"),
        (lambda s: s.pop("model.enc.16x16_conv.weight"), "another kind"),
        (lambda s: s.update({"model.dec.16x16_up.skip.resample_filter": torch.ones(1, 1, 2, 2)}), "no box filter"),
    ],
)
def test_networks_of_another_kind(tmp_path, change, reason):
    state = dict(small_network().state_dict())
    change(state)
    torch.save(state, tmp_path / "s.pt")
    with pytest.raises(ModelError, match=reason):
        read_foreign(tmp_path / "s.pt")


def test_blocks_with_other_settings(tmp_path, monkeypatch):
    from published_files import Recorded

    rebuild = persistence(monkeypatch)
    network = small_network()
    network.model.enc["16x16_block0"].skip_scale = 1.0
    torch.save({"ema": Recorded(network, rebuild, "")}, tmp_path / "s.pt")
    with pytest.raises(ModelError, match=r"skip_scale is 1\.0"):
        read_foreign(tmp_path / "s.pt")


def test_an_existing_folder_is_kept(tmp_path):
    torch.save(small_network().state_dict(), tmp_path / "s.pt")
    folder = tmp_path / "model"
    folder.mkdir()
    import_published(tmp_path / "s.pt", folder)
    with pytest.raises(OutputError, match="--overwrite"):
        import_published(tmp_path / "s.pt", folder)
    import_published(tmp_path / "s.pt", folder, overwrite=True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            {"epoch": 3, "state_dict": {"layer.weight": torch.zeros(3)}},
            "but a dictionary of epoch, state_dict; expected",
        ),
        ({n: n for n in range(9)}, r"but a dictionary of 0, 1, 2, 3, \.\.\.; expected"),
        (torch.nn.Linear(2, 2), r"but an object of torch\.nn\.modules\.linear\.Linear .*expected"),
        ([1], "but a list; expected"),
        ({}, "but an empty dictionary; expected"),
    ],
)
def test_a_failed_import_says_what_the_file_holds_and_what_was_expected(tmp_path, content, text):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=text) as caught:
        read_foreign(tmp_path / "other.pt")
    assert "map_layer0.weight" in str(caught.value)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ModelError, match=r"not a file from torch\.save.*; expected is a file of torch\.save"):
        read_foreign(tmp_path / "text.pt")
