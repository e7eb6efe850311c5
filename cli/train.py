"""geo-refdiff train."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, say
from geo_refdiff.cli.main import INTERRUPTED
from geo_refdiff.cli.options import debug_option, record_options
from geo_refdiff.options import TrainOptions


@click.command(context_settings={"show_default": True})
@click.argument("config", type=str)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/<name of the config>]"
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting; may be given again."
)
@click.option("--init", metavar="NAME|DIR", help="Begin with the weights of this model (fine-tuning).")
@record_options(TrainOptions)
@click.option("--list", "show", is_flag=True, is_eager=True, expose_value=False, callback=lambda c, p, v: _list(c, v),
              help="List the presets.")  # fmt: skip
@message_options
@debug_option
def train(
    config: str, out: Path | None, overrides: tuple[str, ...], init: str | None, debug: bool, **options: Any
) -> None:
    """Train a model from CONFIG, a TOML file or the name of a preset, and write its folder.

    \b
    geo-refdiff train cpu-minutes --set data.train='["pairs.csv"]' -o runs/first
    torchrun --nproc-per-node 4 -m geo_refdiff.cli.main train paper -o runs/paper
    """
    import json

    from geo_refdiff.train.config import load_config
    from geo_refdiff.train.loop import TrainingInterrupted
    from geo_refdiff.train.run import train as run

    if init is not None:
        overrides = (*overrides, f"model.init={json.dumps(init)}")
    settings = load_config(config, overrides)
    try:
        run(
            settings,
            out or Path("runs") / Path(config).stem,
            command=_command(),
            log=say,
            **options,
        )
    except TrainingInterrupted as stop:
        say(str(stop), logging.ERROR)
        raise click.exceptions.Exit(INTERRUPTED) from stop


def _command() -> str:
    """The command line that begins the same run."""
    args = [arg for arg in sys.argv[1:] if arg not in ("--resume", "--overwrite")]
    world = int(os.environ.get("WORLD_SIZE", "1"))
    program = (
        ["torchrun", "--nproc-per-node", str(world), "-m", __package__ + ".main"] if world > 1 else ["geo-refdiff"]
    )
    return shlex.join([*program, *args])


def _list(context: click.Context, wanted: bool) -> None:
    if wanted:
        from geo_refdiff.train.config import presets

        for name, path in presets().items():
            click.echo(f"{name:16} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        context.exit()
