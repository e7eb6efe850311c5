"""The files of a product: of a folder, a zip or a tar, all read by GDAL where they are."""

from __future__ import annotations

import json
import re
import tarfile
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from geo_refdiff.errors import InputError
from geo_refdiff.raster.gdal import one_line

_ARCHIVES = {".zip": "/vsizip/", ".tar": "/vsitar/"}
_MOST_LISTED = 10_000
_DAMAGED = (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError)

Number = TypeVar("Number", int, float)


class Files:
    """Names and texts of a product's files.

    A folder in which everything is in one single folder is that folder; so are archives.

    Attributes:
        path: of the folder or archive, absolute.
        names: of the files, relative, with "/"; of a folder those in it and in the folders in it.

    Raises:
        InputError: an archive that is damaged or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = None if path.is_dir() else _ARCHIVES[path.suffix.lower()]
        self._root = ""
        if self._archive is None:
            self.names = self._listed()
        else:
            with self._readable():
                names = _zip_names(path) if self._archive == "/vsizip/" else _tar_names(path)
            tops = {name.partition("/")[0] for name in names}
            if len(tops) == 1 and all("/" in name for name in names):
                self._root = f"{tops.pop()}/"
            self.names = tuple(name.removeprefix(self._root) for name in names)

    def gdal(self, name: str) -> str:
        """A file as GDAL reads it."""
        if self._archive is None:
            return str(self.path / self._root / name)
        return f"{self._archive}{{{self.path}}}/{self._root}{name}"

    def has(self, name: str) -> bool:
        """Whether there is such a file, at any depth."""
        return (self.path / self._root / name).is_file() if self._archive is None else name in self.names

    def matching(self, pattern: str) -> list[re.Match[str]]:
        """The files whose names match as a whole."""
        matches = (re.fullmatch(pattern, name) for name in sorted(self.names))
        return [match for match in matches if match is not None]

    def text(self, name: str) -> str:
        """What a text file holds.

        Raises:
            InputError: it cannot be read.
        """
        with self._readable(name):
            if self._archive is None:
                return (self.path / self._root / name).read_text(encoding="utf-8")
            return _member(self.path, self._root + name).decode()

    def stamp(self, names: Sequence[str]) -> tuple[int, int]:
        """Size of some files together, bytes, and the latest change, ns; of an archive its own."""
        paths = [self.path] if self._archive else [self.path / self._root / name for name in names]
        states = [path.stat() for path in paths]
        return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)

    def _listed(self) -> tuple[str, ...]:
        with self._readable():
            top = list(self.path.iterdir())
            if len(top) == 1 and top[0].is_dir():
                self._root = f"{top[0].name}/"
                top = list(top[0].iterdir())
            base = self.path / self._root
            listed = []
            for entry in top[:_MOST_LISTED]:
                inside = list(entry.iterdir())[:_MOST_LISTED] if entry.is_dir() else [entry]
                listed += [path.relative_to(base).as_posix() for path in inside if path.is_file()]
        return tuple(listed)

    @contextmanager
    def _readable(self, name: str = "") -> Iterator[None]:
        """Errors of the file system and of archives as one line."""
        try:
            yield
        except (*_DAMAGED, UnicodeDecodeError) as error:
            what = f"{self.path}/{name}" if name else str(self.path)
            raise InputError(
                f"{what}: cannot be read ({one_line(error, 120)}); it is damaged or cut short: fetch it again"
            ) from error


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar by its name."""
    return path.suffix.lower() in _ARCHIVES and path.is_file()


def parsed_xml(where: str, text: str) -> ET.Element:
    """XML without its namespaces.

    Raises:
        InputError: it is none.
    """
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InputError(f"{where}: is no XML ({one_line(error, 120)}); fetch the product again") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def parsed_json(where: str, text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON ({one_line(error, 120)}); fetch the product again") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: holds no JSON object; fetch the product again")
    return data


def number(where: str, name: str, text: str | None, kind: Callable[[str], Number]) -> Number:
    """A number of the metadata.

    Raises:
        InputError: missing, or none.
    """
    try:
        return kind(str(text).strip())
    except ValueError:
        reason = "is missing" if text is None else f"is '{text.strip()[:40]}', no number"
        raise InputError(f"{where}: {name} {reason}; fetch the product again") from None


def _zip_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def _tar_names(path: Path) -> list[str]:
    with tarfile.open(path, "r:") as archive:
        return [member.name.removeprefix("./") for member in archive if member.isfile()]


def _member(path: Path, name: str) -> bytes:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    with tarfile.open(path, "r:") as archive:
        member = next((m for m in archive if m.name.removeprefix("./") == name), None)
        stream = None if member is None else archive.extractfile(member)
        if stream is None:
            raise tarfile.TarError(f"no file {name}")
        return stream.read()
