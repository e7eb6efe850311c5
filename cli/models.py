"""`geo-refdiff models`: list, describe and import models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.options import debug_option, report_options


@click.group()
def models() -> None:
    """List, describe and import models."""


@models.command("list")
@report_options
def list_models(as_json: bool, debug: bool) -> None:
    """List the models that come with the package."""
    from geo_refdiff.diffusion.checkpoint import bundled_models, describe_model

    bundled = [describe_model(name) for name in bundled_models()]
    if as_json:
        click.echo(json.dumps(bundled, indent=2))
        return
    if not bundled:
        click.echo("no models are bundled; give --model a model folder")
    for model in bundled:
        size = f"{model['parameters'] / 1e6:.1f} M parameters"
        click.echo(f"{model['name']}: {model['architecture']}, {size}, {', '.join(model['bands'])}")


@models.command("info")
@click.argument("model")
@report_options
def info(model: str, as_json: bool, debug: bool) -> None:
    """Describe MODEL: the name of a bundled model, a model folder or a URL (hf://owner/name, https://.../model.tar.gz)."""
    from geo_refdiff.diffusion.checkpoint import describe_model

    facts = describe_model(model)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' ') + ':':<17}{_shown(key, value)}")


@models.command("import")
@click.argument("published", metavar="PUBLISHED.PT", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the model that DIR holds.")
@debug_option
def import_model(published: Path, folder: Path, overwrite: bool, debug: bool) -> None:
    """Import the published checkpoint PUBLISHED.PT into the new model folder DIR.

    Nothing in the file is executed: its tensors are read, its code is not.
    """
    from geo_refdiff.diffusion.checkpoint import describe_model
    from geo_refdiff.diffusion.foreign import import_published

    target = import_published(published, folder, overwrite=overwrite)
    facts = describe_model(target)
    click.echo(f"{target}: {facts['parameters'] / 1e6:.1f} M parameters, sha256 {facts['sha256'][:12]}")


def _shown(key: str, value: Any) -> str:
    if key == "receptive_field":
        return "the whole window" if value is None else f"{value} px"
    if key == "parameters":
        return f"{value:,}"
    if key == "weights_bytes":
        return f"{value / 1e6:.1f} MB"
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value)
    return "none" if value is None else str(value)
