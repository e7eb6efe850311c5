"""Models elsewhere: repositories of the Hugging Face Hub, archives and folders behind a URL, fetched once and kept.

    hf://owner/name[@revision]              a repository; a branch, a tag or a commit
    https://.../model.tar.gz[#sha256=...]   an archive with config.json and the weights, in one folder at most
    https://.../folder[#sha256=...]         a folder with config.json and model.safetensors, or its shards with their
                                            index, model.safetensors.index.json

Repositories are kept where huggingface_hub keeps them, the rest in ``~/.cache/geo-refdiff/models``
(``XDG_CACHE_HOME``). What is there is used where the server cannot be reached; what is pinned to a commit or an
SHA-256 (that of the model, as `geo-refdiff models info` shows it) is used without asking.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urldefrag, urlsplit

from geo_refdiff.errors import ModelError
from geo_refdiff.raster.files import cache_folder, write_json_atomic
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.signed_urls import unsigned

MODEL_FILES = re.compile(
    r"config\.json|README\.md|uncertainty\.json|(model|weights)\.safetensors|model-\d{5}-of-\d{5}\.safetensors"
)
"""Names of what a model folder may hold; nothing else is fetched or unpacked."""
INDEX = "model.safetensors.index.json"
"""Names the shards of a model: {"weight_map": {tensor: file}}."""
MAX_BYTES = 16 << 30
"""A model that is larger, packed or unpacked, is refused."""

_MAX_READ = 64 << 20
_MAX_MEMBERS = 1000
_CHUNK = 1 << 20
_TIMEOUT = 30.0
_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model that was fetched.

    Attributes:
        folder: where it is now.
        source: its URL without signatures, pinned: by the commit of the Hub, or by its SHA-256.
        name: its short name.
        offline: why the copy in the cache was used unchecked, "" = the server answered, or the name is pinned.
    """

    folder: Path
    source: str
    name: str
    offline: str = ""


def is_model_url(name: object) -> bool:
    """Whether a model's name is a URL of those that `fetch_model` takes."""
    return isinstance(name, str) and name.startswith(("hf://", "https://", "http://"))


@lru_cache(maxsize=64)
def fetch_model(url: str) -> RemoteModel:
    """The folder of a model elsewhere, fetched unless the copy in the cache will do; resolved once in a process.

    Raises:
        ModelError: in one line: no such model, a server that cannot be reached and no copy in the cache, not the pinned
            model, damaged.
    """
    if url.startswith("hf://"):
        return _from_hub(url)
    address, fragment = urldefrag(url)
    pin = _FRAGMENT.fullmatch(fragment)
    if fragment and pin is None:
        raise ModelError(f"{url}: behind '#' stands sha256= and 64 hexadecimal digits, or nothing")
    if not urlsplit(address).hostname:
        raise ModelError(f"{url}: is no URL; give https://host/path")
    return _from_web(address, pin[1].lower() if pin else "")


def _from_hub(url: str) -> RemoteModel:
    match = _HUB.fullmatch(url)
    if match is None:
        raise ModelError(f"{url}: a model of the Hub is called hf://owner/name, or hf://owner/name@revision")
    repository, revision = match[1], match[2] or None
    try:
        from huggingface_hub import errors, snapshot_download
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]
    except ImportError:
        raise ModelError(f"{url}: needs huggingface_hub; pip install 'geo-refdiff[hub]'") from None
    patterns = ["config.json", "README.md", "uncertainty.json", "*.safetensors"]
    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
                endpoint=os.environ.get("HF_ENDPOINT") or None,
                tqdm_class=None if sys.stderr.isatty() else _silent(tqdm),
            )
        )
    except errors.RevisionNotFoundError:
        raise ModelError(f"{url}: {repository} has no revision '{revision}'") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"{url}: no such model, or a private one; check the name, or set HF_TOKEN") from None
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{url}: the Hub cannot be reached ({one_line(error.__cause__ or error)}) and the model is not in the "
            f"cache; fetch it once with a network"
        ) from error
    except Exception as error:  # whatever the HTTP client of the installed version raises
        raise ModelError(f"{url}: cannot be fetched: {one_line(error)}") from error
    if not (folder / "config.json").is_file():
        raise ModelError(f"{url}: is no model of geo-refdiff: it has no config.json")
    return RemoteModel(folder, f"hf://{repository}@{folder.name}", repository)


def _silent(bar: Any) -> Any:
    """A progress bar that shows nothing, for where there is no terminal."""

    class Silent(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"disable": True}))

    return Silent


def _from_web(address: str, pin: str) -> RemoteModel:
    parts = PurePosixPath(urlsplit(address).path)
    name = re.sub(r"(\.tar\.gz|\.tgz|\.tar)$", "", parts.name) or urlsplit(address).hostname or "model"
    public = unsigned(address)
    home = _cache() / sha256(public.encode()).hexdigest()[:16]
    if pin and (home / pin).is_dir():
        return RemoteModel(home / pin, f"{public}#sha256={pin}", name)
    last = _last_fetched(home)
    fetch = _fetch_archive if parts.name.endswith(_ARCHIVES) else _fetch_folder
    offline = ""
    try:
        digest = _update(home, address, last, fetch)
    except _UnreachableError as error:
        digest, offline = str(last.get("sha256", "")), str(error)
        if not digest or not (home / digest).is_dir():
            raise ModelError(
                f"{address}: cannot be fetched ({error}) and is not in the cache; check the URL, or fetch it once with "
                f"a network"
            ) from error
    if pin and digest != pin:
        raise ModelError(f"{address}: is another model (SHA-256 {digest}) than the pinned one ({pin})")
    return RemoteModel(home / digest, f"{public}#sha256={digest}", name, offline)


def _cache() -> Path:
    return cache_folder() / "models"


def _last_fetched(home: Path) -> dict[str, Any]:
    """What was fetched last from an address: the model's SHA-256 and the validators of its files."""
    try:
        last = json.loads((home / "latest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return last if isinstance(last, dict) and (home / str(last.get("sha256"))).is_dir() else {}


def _update(home: Path, address: str, last: dict[str, Any], fetch: Any) -> str:
    """Fetch what is new; the model's SHA-256."""
    from geo_refdiff.diffusion.model_folder import model_digest

    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix="fetching-") as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            validators = fetch(address, folder, last.get("validators") or {})
            if validators is None:
                return str(last["sha256"])
            digest = model_digest(folder)
            if not (home / digest).is_dir():
                try:
                    folder.rename(home / digest)
                except OSError:  # another process was faster
                    if not (home / digest).is_dir():
                        raise
            write_json_atomic(
                home / "latest.json", {"url": unsigned(address), "sha256": digest, "validators": validators}
            )
            return digest
    except (_UnreachableError, ModelError):
        raise
    except OSError as error:
        raise ModelError(f"{address}: cannot be kept in {home}: {error.strerror or error}") from error


def _fetch_archive(address: str, folder: Path, validators: dict[str, str]) -> dict[str, str] | None:
    """Unpack an archive into a folder; None where it is the one that is here."""
    packed = folder.parent / "archive"
    validator = _get(address, packed, validators.get("archive"))
    if validator is None:
        return None
    _unpack(packed, folder, address)
    packed.unlink()
    return {"archive": validator}


def _fetch_folder(address: str, folder: Path, validators: dict[str, str]) -> dict[str, str] | None:
    """The files of a folder; None where all are those that are here."""
    parts = urlsplit(address)

    def url(name: str) -> str:
        return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()

    names, index = ["config.json"], folder.parent / "index"
    try:
        _get(url(INDEX), index, None, limit=_MAX_READ)
        names += _shards(index, url(INDEX))
    except _MissingError:
        names.append("model.safetensors")
    if validators and list(validators) == names and all(validators.values()):
        try:
            if all(_get(url(n), folder / n, validators[n]) is None for n in names):
                return None
        except _MissingError:
            pass
    now = {name: _get(url(name), folder / name, None) or "" for name in names}
    for name in ("README.md", "uncertainty.json"):
        try:
            _get(url(name), folder / name, None, limit=_MAX_READ)
        except _MissingError:
            continue
    return now


def _shards(index: Path, address: str) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if names and all(MODEL_FILES.fullmatch(name) and name.endswith(".safetensors") for name in names):
            return names
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ModelError(f"{address}: is no index of safetensors files")


def _unpack(packed: Path, folder: Path, address: str) -> None:
    """Write the model's files out of an archive: by their names alone, so that no path leads elsewhere."""
    size, tops = 0, set()
    try:
        with _opened(packed) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for count, member in enumerate(archive):
                size += max(member.size, 0)
                if count >= _MAX_MEMBERS or size > MAX_BYTES or archive.offset > 2 * MAX_BYTES:
                    raise ModelError(f"{address}: the archive holds more than a model: {count} files, {size} bytes")
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ModelError(f"{address}: the archive's member {member.name!r} leads out of its folder")
                if not member.isreg() or not MODEL_FILES.fullmatch(path.name) or len(path.parts) > 2:
                    continue
                tops.add(path.parent)
                source = archive.extractfile(member)
                assert source is not None
                with source, (folder / path.name).open("xb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
    except FileExistsError:
        raise ModelError(f"{address}: the archive holds the same file twice") from None
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise ModelError(f"{address}: is no intact .tar.gz: {one_line(error)}") from error
    if len(tops) > 1 or not (folder / "config.json").is_file():
        raise ModelError(f"{address}: the archive is no model of geo-refdiff: one folder with config.json is expected")


class _Unpacked(gzip.GzipFile):
    """A gzip file that refuses to hold much at once: a header may claim any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_READ:
            raise ValueError(f"a read of {size} bytes")
        return super().read(size)


@contextmanager
def _opened(packed: Path) -> Iterator[IO[bytes]]:
    with packed.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            yield raw
            return
        with _Unpacked(fileobj=raw) as stream:
            yield stream  # type: ignore[misc]


class _UnreachableError(Exception):
    """A server that does not answer, or answers with an error."""


class _MissingError(_UnreachableError):
    """A file that the server does not have."""


def _get(url: str, target: Path, validator: str | None, limit: int = MAX_BYTES) -> str | None:
    """Fetch a file; its validator (ETag or date, "" = it has none), or None where it is still the one that is here."""
    request = urllib.request.Request(url, headers={"User-Agent": "geo-refdiff", "Accept-Encoding": "identity"})
    if validator:
        by_tag = validator.startswith(('"', "W/"))
        request.add_header("If-None-Match" if by_tag else "If-Modified-Since", validator)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, target.open("wb") as stream:
            done, expected = 0, answer.headers.get("Content-Length")
            while chunk := answer.read(_CHUNK):
                done += len(chunk)
                if done > limit:
                    raise ModelError(f"{url}: larger than {limit} bytes; fetch it by other means")
                stream.write(chunk)
            if expected is not None and expected.isdecimal() and done != int(expected):
                raise _UnreachableError(f"the server sent {done} of {expected} bytes")
            return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 304:
                return None
            if error.code in (404, 410):
                raise _MissingError(f"the server says {error.code} {error.reason}") from None
            raise _UnreachableError(f"the server says {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        reason = error.reason
        raise _UnreachableError(one_line(reason) if isinstance(reason, Exception) else str(reason)) from error
    except (TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as error:
        raise _UnreachableError(one_line(error)) from error
