"""Settings of a run in a TOML file: `--config FILE` reads them, `--plan-only` writes them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from geo_refdiff import __version__
from geo_refdiff.cli.options import GroupedOption
from geo_refdiff.errors import InputError, OptionError, OutputError
from geo_refdiff.options import FIELDS, GROUPS, check_names
from geo_refdiff.raster.gdal import is_gdal_name, one_line
from geo_refdiff.signed_urls import unsigned

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OWN = "# Written by geo-refdiff --plan-only, which replaces it"

_NEVER = ("config", "verbose", "quiet", "log_file")
_ONCE = ("plan_only", "resume", "overwrite", "retry_failed", "json", "debug")
"""Options that a file may hold, but that are not written: they belong to one call of the command."""

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def config_option(command: _Command) -> _Command:
    """--config: settings from a file, which the command line overrules."""
    return click.option(
        "--config",
        cls=GroupedOption,
        metavar="FILE.toml",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="Settings from a TOML file, by the names of arguments and options (scale = 8); those of the command line "
        "win. --plan-only writes one.",
    )(command)


def settings_of(path: Path, command: click.Command) -> dict[str, Any]:
    """The settings in a file, by the names of the command's parameters, as click's `default_map` takes them.

    Raises:
        InputError: the file cannot be read, or is no TOML.
        OptionError: a setting that the command does not know, with the nearest one, or a value of the wrong kind.
    """
    try:
        with path.open("rb") as stream:
            data = tomllib.load(stream)
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}; give a TOML file, as --plan-only writes it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: is no TOML ({one_line(error)}); write lines like scale = 8") from error
    parameters = _parameters(command)
    settings: dict[str, Any] = {}
    try:
        for key, value in data.items():
            name = key.replace("-", "_")
            check_names([name], parameters)
            if parameters[name].name in settings:
                raise OptionError(f"option '{name}' is given twice")
            settings[str(parameters[name].name)] = _given(name, parameters[name], value)
    except OptionError as error:
        raise OptionError(f"--config {path}: {error}") from error
    return settings


def write_config(out: Path, context: click.Context, decided: Mapping[str, Any]) -> Path:
    """Write the settings of a command, defaults included, so that `--config` repeats it.

    Args:
        out: what the command writes, beside which the file is put.
        context: of the command.
        decided: values that the run has settled itself, by name; they stand instead of those given.

    Returns:
        The file.

    Raises:
        OutputError: it cannot be written, or another file of that name is there.
    """
    import tomli_w

    from geo_refdiff.raster.files import check_replaceable, write_bytes_atomic

    path = out.with_name(f"{out.name.removesuffix('.tif')}.run.toml")
    check_replaceable(path)
    if path.exists() and not path.read_bytes().startswith(_OWN.encode()):
        raise OutputError(f"{path}: was not written by --plan-only, which would replace it; rename it")
    values: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, parameter in _parameters(context.command).items():
        value = decided.get(name, context.params.get(str(parameter.name)))
        if name in _ONCE or value is None or value == () or value is False:
            continue
        values.setdefault(getattr(parameter, "group", GROUPS[0]), {})[name] = _plain(parameter, value)
    head = f"{_OWN} (version {__version__}); geo-refdiff {context.info_name} --config {path.name}\n"
    text = "".join(f"\n# {group}\n{tomli_w.dumps(part)}" for group, part in values.items() if part)
    plain = unsigned(text)
    if plain != text:
        head += "# Signatures of URLs are left out: give those inputs again on the command line\n"
    write_bytes_atomic(path, (head + plain).encode())
    return path


def _load(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.default_map = settings_of(path.expanduser(), context.command)


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    """A command's arguments and options by their names in a file: flags without their dashes."""
    parameters = {}
    for parameter in command.params:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        name = flags[0].removeprefix("--").replace("-", "_") if flags else str(parameter.name)
        if name not in _NEVER:
            parameters[name] = parameter
    return parameters


def _given(name: str, parameter: click.Parameter, value: Any) -> Any:
    """A value of a file as the command line would give it.

    Raises:
        OptionError: it is of the wrong kind.
    """
    field = FIELDS.get(name)
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return _of_kind(name, value, bool)
    if parameter.multiple:
        return [_of_kind(name, part, str) for part in (value if isinstance(value, list) else [value])]
    if field is not None and field.name == parameter.name:
        field.accepted(value)
        return ",".join(map(str, value)) if isinstance(value, list) and parameter.nargs == 1 else value
    kinds: dict[str, type] = {"integer": int, "float": float}
    return _of_kind(name, value, kinds.get(parameter.type.name, str))


def _of_kind(name: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise OptionError(f"{name} {value!r}: give {_KINDS[kind]}")
    return value


def _plain(parameter: click.Parameter, value: Any) -> Any:
    """A value for TOML; files by their full path."""
    if isinstance(value, tuple | list):
        return [_plain(parameter, part) for part in value]
    if isinstance(value, bool | int | float):
        return value
    text, metavar = str(value), str(parameter.metavar)
    is_source = isinstance(parameter, click.Argument) or "FILE" in metavar or "SOURCE" in metavar
    return absolute(text) if is_source and text not in metavar.split("|") else text


def absolute(text: str) -> str:
    """A file, or a layer of one, by its full path; anything else, as a URL or a box, as it is."""
    name, bar, layer = text.partition("|")
    path = Path(name).expanduser()
    return text if is_gdal_name(name) or not path.exists() else f"{path.absolute()}{bar}{layer}"


def model_name(name: str) -> str:
    """A model's folder by its full path, a model that is known by name as it is."""
    from geo_refdiff.diffusion.checkpoint import bundled_models
    from geo_refdiff.restore.restorers import CLASSICAL

    return name if name in CLASSICAL or name in bundled_models() else absolute(name)
