"""The command `geo-refdiff`: sub-commands, and how errors are printed."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from geo_refdiff import __version__
from geo_refdiff.cli.console import LOG, Console
from geo_refdiff.errors import GeoRefDiffError, OptionError

_COMMANDS = {
    "upscale": ("geo_refdiff.cli.upscale", "Turn a coarse scene into a sharp GeoTIFF."),
    "batch": ("geo_refdiff.cli.batch", "Upscale many areas of interest, on one machine or a dask cluster."),
    "coregister": (
        "geo_refdiff.cli.coregister",
        "Measure how a fine reference is aligned with a coarse scene, and align it.",
    ),
    "detect-change": ("geo_refdiff.cli.detect_change", "Find where a coarse scene has changed since a fine reference."),
    "simulate": ("geo_refdiff.cli.simulate", "Make a coarse scene of a fine one, as a sensor would."),
    "demo": ("geo_refdiff.cli.demo", "Upscale the bundled sample scene and draw a picture."),
    "train": ("geo_refdiff.cli.train", "Train a model from pairs of dates."),
    "train-detector": ("geo_refdiff.cli.train_detector", "Train a change detector from pairs of dates."),
    "index": ("geo_refdiff.cli.index", "Make the index of a folder of dates, for training and evaluation."),
    "evaluate": ("geo_refdiff.cli.evaluate", "Measure models on pairs with a known truth, beside baselines."),
    "validate": ("geo_refdiff.cli.validate", "Check that an output keeps what it promises."),
    "calibrate": ("geo_refdiff.cli.calibrate", "Fit how sure a model is to pairs whose truth is known."),
    "models": ("geo_refdiff.cli.models", "List, describe and import models."),
}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a sub-command when it is used, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order in which they are shown."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The sub-command, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The sub-command that is asked for; for a mistyped one the error names the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            if near:
                raise click.UsageError(f"no command '{args[0]}': did you mean {near[0]}?", ctx) from error
            raise click.UsageError(f"no command '{args[0]}': choose of {', '.join(_COMMANDS)}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of sub-commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geo-refdiff")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Sharp, georeferenced pictures of now: reference-based diffusion super-resolution of satellite scenes."""


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: runs the command and exits with 0, 1 (error), 2 (usage) or 130 (Ctrl-C)."""
    sys.exit(run(list(sys.argv[1:] if args is None else args)))


def run(args: list[str]) -> int:
    """Runs the command; errors become one line on stderr.

    Returns:
        The exit code.
    """
    # read when numpy is loaded: its products are small, and threads that wait for each other cost seconds
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = "--debug" in args
    if not debug:
        warnings.simplefilter("ignore")
    console = Console(args)
    with console.listening():
        return _run(args, console, debug)


def _run(args: list[str], console: Console, debug: bool) -> int:
    try:
        outcome: Any = cli.main(args=args, prog_name="geo-refdiff", standalone_mode=False, obj=console)
        return outcome if isinstance(outcome, int) else 0
    except (KeyboardInterrupt, click.Abort) as stop:
        LOG.error("%s", str(stop) or "interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        LOG.error("error: %s", error.format_message())
        return error.exit_code
    except GeoRefDiffError as error:
        if debug:
            raise
        LOG.error("error: %s", error)
        return 2 if isinstance(error, OptionError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        if debug:
            raise
        LOG.error("error: out of memory; give a smaller --window, --block-size or --batch-size")
        return 1
    except Exception as error:
        if debug:
            raise
        LOG.error("error: unexpected %s: %s; geo-refdiff --debug shows where", type(error).__name__, error)
        return 1


if __name__ == "__main__":
    main()
