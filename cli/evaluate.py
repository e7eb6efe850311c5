"""geo-refdiff evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show_text
from geo_refdiff.cli.options import debug_option
from geo_refdiff.cli.progress import counted

_FILE = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--data", required=True, metavar="SOURCE", help="Index of pairs, or folder of PNG pairs.")
@click.option("-o", "--out", required=True, type=_FILE, metavar="DIR", help="Folder for the report.")
@click.option("--scale", "scales", type=int, multiple=True, default=(8,), help="output pixels along a scene pixel.")
@click.option("--degradation", type=click.Choice(["psf", "bicubic"]), default="psf", help="How the LR is made.")
@click.option("--psf-sigma", type=float, default=0.35, help="Width of the PSF, scene pixels.")
@click.option("--declared-psf", type=float, help="What methods are told of it.  [default: as it is]")
@click.option("--noise", type=float, default=0.0, metavar="DN", help="Standard deviation of the LR's noise.")
@click.option("--lr", type=_FILE, metavar="DIR|own", help="LR images by the tile's name, or the data set's.")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    default=("none",),
    metavar="none|auto|true|wrong|DIR",
    help="Change mask that models are given; auto = as upscale finds it; DIR: class indices by the tile's name.",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Choice(["given", "raw", "none", "other"]),
    default=("given",),
    help="Reference that models are given: the matched one, as it is, none, or of another place.",
)
@click.option("--paste", is_flag=True, help="Paste other places into the references; the true mask is then exact.")
@click.option(
    "--consistency",
    type=click.Choice(["window", "wiener", "standard", "strict"]),
    default="window",
    help="Back-projection of each tile, a Wiener filter that knows the noise, or upscale's correction of the whole.",
)
@click.option("--outputs", multiple=True, metavar="NAME=DIR", help="Results of another method by the tile's name.")
@click.option("--root", type=_FILE, metavar="DIR", help="Folder to which the paths of an index are relative.")
@click.option("--split", metavar="NAME", help="Split of the data set.")
@click.option("--only", multiple=True, metavar="NAME", help="Places, or parts of their names, to take alone.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Places, or parts of their names, to leave out.")
@click.option("--bands", metavar="B,B,...", help="Bands to use, by name.  [default: all]")
@click.option("--places", type=int, metavar="N", help="The first N places.  [default: all]")
@click.option("--tile", type=int, default=256, help="Side of a tile, output pixels.")
@click.option("--average", type=int, default=1, metavar="N", help="Average N x N pixels first: coarser images.")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--detail", "details", type=float, multiple=True, metavar="0..1", help="As upscale takes it.")
@click.option("--sampler", help="As upscale takes it.  [default: the model's]")
@click.option("--seed", type=int, default=0, help="Of noise, pasted change and the tiles shown.")
@click.option("--alexnet", type=_FILE, metavar="FILE", help="AlexNet as torchvision's state dict, for LPIPS.")
@click.option("--lpips", type=_FILE, metavar="FILE", help="Linear weights of LPIPS (AlexNet, version 0.1).")
@click.option("--inception", type=_FILE, metavar="FILE", help="Inception for FID: a TorchScript module.")
@click.option("--windows", is_flag=True, help="Measure how far two windows of a model disagree, too.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where networks run.")
@click.option("--dtype", default="float32", metavar="float32|bfloat16", help="In which models run.")
@click.option("--grid", type=int, default=6, metavar="N", help="Tiles in the picture grid.")
@click.option("--show", multiple=True, metavar="NAME", help="Tiles or pairs to show, in place of random ones.")
@click.option("--pictures", type=int, default=0, metavar="N", help="Tiles to draw at full size each, too.")
@click.option("--images", is_flag=True, help="Write LR, Ref, mask, truth and results as image files, too.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
@message_options
@debug_option
def evaluate(out: Path, outputs: tuple[str, ...], bands: str | None, debug: bool, **options: Any) -> None:
    """Measure each MODEL on pairs with a known truth, beside classical baselines and results of other methods.

    \b
    geo-refdiff evaluate default --data test.csv --scale 8 --scale 16 -o report
    geo-refdiff evaluate default my/model --data test.csv --outputs TTSR=results/ttsr -o report
    """
    from geo_refdiff.errors import OptionError
    from geo_refdiff.evaluate.request import Request
    from geo_refdiff.evaluate.run import evaluate as run

    folders = {}
    for text in outputs:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in folders:
            raise OptionError(f"outputs '{text}': give NAME=DIR, each name once")
        folders[name] = Path(folder)
    wanted = tuple(band.strip() for band in (bands or "").split(",") if band.strip())
    with counted("tile") as progress:
        found = run(Request(outputs=folders, bands=wanted, **options), out, progress)
    show_text("\n".join([found.text, *(f"written: {path}" for path in found.summary())]))
