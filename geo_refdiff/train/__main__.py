"""`python -m geo_refdiff.train OUT --aerial DIR`: train a compact model on aerial pairs and generated landscapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from geo_refdiff.degrade.sensor import DEFAULT_PSF_SIGMA
from geo_refdiff.nn.compact import CompactNet, CompactSize
from geo_refdiff.nn.receptive_field import receptive_radius
from geo_refdiff.train.loop import Recipe, train
from geo_refdiff.train.pairs import Pair, aerial_pairs, generated_pairs
from geo_refdiff.train.samples import SampleMaker

CLASSES = ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
BANDS = ("red", "green", "blue", "nir")
SCALES = {8: 0.55, 16: 0.2, 4: 0.1, 12: 0.05, 10: 0.05, 6: 0.05}
SIGMA_DATA = 0.14

CARD = """# {name}

Compact Ref-Diff network, {parameters:.2f} M parameters, for red, green, blue and (optionally) near infrared, 4x to 16x.

Data: {aerial} ordered pairs of dates from {places} (Ventura et al. 2024, CC BY 4.0; USDA NAIP), {generated} generated
landscapes with exact change masks. Never trained on: {excluded}.
"""


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--aerial", type=click.Path(path_type=Path, exists=True), help="Folder <city>/<place>/<year>.tif.")
@click.option("--exclude", multiple=True, default=("santa_monica",), show_default=True, help="Cities to leave out.")
@click.option("--landscapes", default=150, show_default=True, help="Generated landscapes.")
@click.option("--minutes", default=20.0, show_default=True, help="Wall time of the training itself.")
@click.option("--width", type=click.Choice(["small", "large"]), default="small", show_default=True)
@click.option("--crop", default=144, show_default=True, help="Crop size to aim at, HR pixels.")
@click.option("--batch", default=8, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def main(
    out: Path,
    aerial: Path | None,
    exclude: tuple[str, ...],
    landscapes: int,
    minutes: float,
    width: str,
    crop: int,
    batch: int,
    seed: int,
    device: str,
) -> None:
    """Train a compact model and write it to the model folder OUT."""
    pairs: list[Pair] = list(aerial_pairs(aerial, exclude)) if aerial else []
    from_air = len(pairs)
    pairs += generated_pairs(range(10_000, 10_000 + landscapes))
    click.echo(f"{from_air} pairs from the air, {len(pairs) - from_air} generated")
    size = CompactSize(widths=(48, 72, 96), hidden=48) if width == "small" else CompactSize(widths=(112, 160, 208))
    torch.manual_seed(seed)
    network = CompactNet(len(BANDS), len(CLASSES), size)
    recipe = Recipe(minutes=minutes, batch=batch, seed=seed, device=device)
    maker = SampleMaker(pairs, SCALES, size.multiple, crop, len(CLASSES), seed)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    places = sorted({pair.name.split("/")[0] for pair in pairs[:from_air]})
    card = CARD.format(
        name=out.name,
        parameters=parameters,
        aerial=from_air,
        places=", ".join(places) or "nowhere",
        generated=len(pairs) - from_air,
        excluded=", ".join(exclude) or "nothing",
    )
    config = model_config(size) | {"receptive_field": receptive_radius(network, len(BANDS))}
    train(network, config, maker, recipe, out, card)


def model_config(size: CompactSize) -> dict[str, Any]:
    """config.json of a model; sampler, gate and halo are those that suited the bundled model, to be measured again."""
    return {
        "architecture": "compact",
        "bands": list(BANDS),
        "optional_bands": ["nir"],
        "classes": list(CLASSES),
        "network": {
            "unshuffle": size.unshuffle,
            "widths": list(size.widths),
            "full_width": size.full_width,
            "hidden": size.hidden,
            "embedding": size.embedding,
        },
        "scales": list(range(4, 17)),
        "sigma_data": SIGMA_DATA,
        "gate_gain": 3.0,
        "halo": 48,
        "window": 512,
        "overlap": 32,
        "back_project": True,
        "psf_sigma": DEFAULT_PSF_SIGMA,
        "sampler": {
            "name": "better-start",
            "steps": 2,
            "sigma_start": 0.02,
            "sigma_min": 0.006,
            "sigma_max": 20.0,
            "rho": 7.0,
        },
    }


if __name__ == "__main__":
    main()
