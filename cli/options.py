"""The options of commands: built from the records of `geo_refdiff.options`, and those that only commands have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import click

from geo_refdiff.options import FIELDS, GROUPS, Field, Options, fields_of

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

_TYPES: dict[Any, Any] = {int: int, float: float, tuple[float, float]: (float, float)}


class GroupedOption(click.Option):
    """An option that help shows under a heading.

    Args:
        group: one of `GROUPS`, or of the command's own.
    """

    def __init__(self, *args: Any, group: str = GROUPS[0], **more: Any) -> None:
        super().__init__(*args, **more)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each group under its heading, "Basic" first, then the command's own; a single one as click does."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, "group", GROUPS[0]), []).append(record)
        own = [name for name in groups if name not in GROUPS]
        for name in [name for name in (*GROUPS[:1], *own, *GROUPS[1:]) if name in groups]:
            with formatter.section(name if len(groups) > 1 else "Options"):
                formatter.write_dl(groups[name])


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def shared(
    *names: str,
    without: Sequence[str] = (),
    texts: Mapping[str, str] = MappingProxyType({}),
    fields: Mapping[str, Field] = FIELDS,
) -> Decorator[Any]:
    """Options of `upscale` as a command has them.

    Args:
        names: keywords, in the order in which help shows them within a group; default all.
        without: those that are left out.
        texts: help of options which do not mean quite the same as with `upscale`.
        fields: among which they are; default those of `upscale`.
    """
    return together(*(_option(fields[name], texts.get(name)) for name in names or fields if name not in without))


def record_options(*records: type[Options]) -> Decorator[Any]:
    """All options of some records."""
    return together(*(_option(field) for record in records for field in fields_of(record).values()))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave, and those with a default of their own."""
    return {name: value for name, value in options.items() if value is not None}


def _option(field: Field, text: str | None = None) -> Decorator[Any]:
    repeated, default = field.option.repeated, field.default
    flags = [field.flag, field.name]
    more: dict[str, Any] = {"required": True} if field.required else {"default": default}
    if field.kind is bool:
        more["is_flag"] = True
        if default:
            flags[0] += f"/--no-{field.flag.removeprefix('--')}"
    else:
        more |= {"type": _TYPES.get(field.item, str), "multiple": repeated}
        more["metavar"] = field.option.metavar or "|".join(field.choices) or None
        if isinstance(default, tuple) and not repeated:
            more["default"] = ",".join(map(str, default)) or None
        if default == "":
            more["show_default"] = False
    return click.option(
        *flags,
        cls=GroupedOption,
        group=field.group,
        help=text or field.help,
        **more,
    )


debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")

report_options = together(
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary on stdout."),
    debug_option,
)
