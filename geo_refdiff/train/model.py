"""The network of a configuration, and the folder of a trained model: config.json, weights, model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geo_refdiff import __version__
from geo_refdiff.diffusion.checkpoint import (
    build_denoiser,
    match_weights,
    model_digest,
    read_config,
    read_weights,
    resolve_model,
    save_model,
)
from geo_refdiff.diffusion.config import CompactConfig, Init, ModelConfig, SamplerConfig, decode_config
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.compact import CompactNet
from geo_refdiff.nn.receptive_field import receptive_radius
from geo_refdiff.raster.files import write_bytes_atomic
from geo_refdiff.records import plain
from geo_refdiff.train.config import INFERENCE_KEYS, Inference, TrainConfig
from geo_refdiff.train.distributed import DistributedContext
from geo_refdiff.train.samples import Source

_UNMEASURED: dict[str, Any] = {
    "halo": 48,
    "window": 512,
    "back_project": True,
    "sampler": SamplerConfig(
        "better-start", steps=2, sigma_start=0.02, sigma_full=0.3, sigma_min=0.006, sigma_max=20.0, rho=7.0
    ),
}
"""How a compact model is used unless [inference] says otherwise: to be measured again on each trained model."""


def new_denoiser(config: TrainConfig, bands: tuple[str, ...], classes: tuple[str, ...]) -> Denoiser:
    """A denoiser in float32 on the CPU: fresh weights drawn from the seed, or those of [model] init.

    Its ``config`` is what config.json of the trained model says; what `init` says of its use is taken over.

    Raises:
        ModelError: options that make no network; an `init` that is unknown or made otherwise, with the settings that
            would fit it.
    """
    torch.manual_seed(config.training.seed)
    described = _described(config, bands, classes)
    if not config.model.init:
        return build_denoiser(_used_as(described, config.inference)).requires_grad_(True)
    folder = resolve_model(config.model.init)
    before = read_config(folder)
    _check_same(folder, before, described)
    use = {key: getattr(before, key) for key in INFERENCE_KEYS if key != "scales" and hasattr(before, key)}
    init = Init(str(config.model.init), model_digest(folder))
    denoiser = build_denoiser(_used_as(replace(described, **use, init=init), config.inference))
    state = {name: value.float() for name, value in read_weights(folder).items()}
    if config.model.half_width and isinstance(before, CompactConfig) and not before.network.half_width:
        state = interpolating(state, denoiser.network.state_dict())
    match_weights(denoiser.network, state, folder)
    denoiser.network.load_state_dict(state)
    return denoiser.requires_grad_(True)


def interpolating(state: dict[str, torch.Tensor], fresh: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a compact network that shuffles channels to pixels as the beginning of one that interpolates.

    Every level's four pixels become their mean; the heads are fresh.

    Args:
        state: of the network that shuffles.
        fresh: of the new network.
    """
    heads = ("head.", "guide_net.head.")
    kept = {name: value for name, value in state.items() if not name.startswith(heads)}
    for name in (name for name in kept if "ups." in name):
        kept[name] = kept[name].reshape(-1, 4, *kept[name].shape[1:]).mean(dim=1)
    return kept | {name: value for name, value in fresh.items() if name.startswith(heads)}


def _described(config: TrainConfig, bands: tuple[str, ...], classes: tuple[str, ...]) -> ModelConfig:
    """The model that a configuration asks for, used as one that nobody has measured yet."""
    model = config.model
    shared: dict[str, Any] = {"bands": bands, "classes": classes, "sigma_data": model.sigma_data}
    if model.architecture == "published":
        return decode_config({"img_channels": len(bands), **shared, **model.published}, "model.published")
    scales = config.samples.factors()
    fresh = CompactConfig(
        **shared,
        optional_bands=tuple(band for band in bands if band == "nir"),
        network=model.network(),
        scales=tuple(range(scales[0], scales[-1] + 1)),
        **_UNMEASURED,
    )
    return _used_as(fresh, _perceptual_inference(config)) if config.perception.active else fresh


def _perceptual_inference(config: TrainConfig) -> Inference:
    """How a model is used whose starts, or samples by one evaluation, were trained by perceptual losses."""
    sampler: dict[str, Any] = {"steps": 0}
    if config.perception.sample:
        sampler = {"steps": 1, "sigma_start": config.perception.sigma}
    return {"sampler": sampler}


def _used_as(described: ModelConfig, use: Inference) -> ModelConfig:
    """A model's config with what is said of its use.

    Raises:
        ModelError: a setting that models of its architecture do not have, or a value with which the model could not be
            read again.
    """
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in use.items() if key != "sampler"
    }
    strange = sorted(given.keys() - {item.name for item in fields(described)})
    if strange:
        raise ModelError(f"inference.{strange[0]}: a {described.architecture} model has no such setting")
    used = replace(described, sampler=replace(described.sampler, **use.get("sampler", {})), **given)
    return decode_config(plain(used), "[inference]")  # `replace` checks no ranges


def _check_same(folder: Path, before: ModelConfig, now: ModelConfig) -> None:
    """Whether a model can be trained on under a configuration."""
    old, new = _shape_of(before), _shape_of(now)
    if new.get("model.half_width") and old.get("model.half_width") == 0:  # `interpolating` makes one of the other
        del new["model.half_width"], new["model.around_start"]
    differing = [key for key in new if old.get(key, new[key]) != new[key]]
    if not differing:
        return
    fits = ", ".join(f"{key} = {old[key]!r} (not {new[key]!r})" for key in differing)
    raise ModelError(f"{folder} cannot be trained on here: it has {fits}; give a config and data that fit it")


def _shape_of(config: ModelConfig) -> dict[str, Any]:
    """What makes two models' weights exchangeable, by the names that a training config gives it."""
    shape: dict[str, Any] = {"model.architecture": config.architecture, "bands": list(config.bands)}
    if config.classes:
        shape["classes"] = list(config.classes)
    shape["model.sigma_data"] = config.sigma_data
    if isinstance(config, CompactConfig):
        return shape | {f"model.{key}": value for key, value in plain(config.network).items()}
    return shape | {f"model.published.{key}": getattr(config, key) for key in ("img_resolution", "model_channels")}


_CARD = """# Model card: {name}

{kind} Ref-Diff network, {parameters:.2f} M parameters; bands {bands}; {scales}. Classes of the mask: {classes}.

SHA-256 {sha256}
(config.json and the weights in order: `cat config.json model*.safetensors | sha256sum` in this folder; also what
`geo-refdiff models info` shows).

## How it was made

    {command}

{steps} steps of {batch} samples, {hours:.2f} hours of work; {processes} process(es) of {threads} thread(s) on {device};
{versions}. Seed {seed}.{init} The whole config, which `geo-refdiff train` reads:

```toml
{toml}
```

## Data and licence

{sources}

Fingerprint of the data (SHA-256 over files with sizes, pairing, registration and rules): {fingerprint}

{attribution}

## Figures

{figures}

## Limits

- It knows images as its data have them: {bands}, {scales}, LR made by the degradation "{degradation}".
  Other sensors, other ground sample distances and other parts of the world were not tried by the run that wrote this.
- The figures above are of a training run, on few tiles and without a mask. Measure with `geo-refdiff evaluate`, beside
  the baselines, on data of your own.
- Detail beyond the scene comes from the reference or is generated: do not take it for an observation.
- Faults seen at full size: to be described by whoever looks at the results and publishes the model.
"""

_UNKNOWN = "Licence and attribution: the config names none (data.attribution); ask its makers before you publish."


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a model was made, for its card and its config.json.

    Attributes:
        command: as it was given, one line.
        fingerprint: of the data.
        steps: optimizer steps done.
        seconds: of work on them.
        processes: of the run; threads: of torch in each; device: where they computed.
        versions: of the software that changes numbers.
    """

    command: str
    fingerprint: str
    steps: int
    seconds: float
    processes: int
    threads: int
    device: str
    versions: dict[str, str]

    @staticmethod
    def of_run(command: str, fingerprint: str, steps: int, seconds: float, context: DistributedContext) -> Provenance:
        """That of a run by this software on this machine; without a command it was called from Python."""
        on_gpu = context.device.startswith("cuda")
        return Provenance(
            command or "called from Python",
            fingerprint,
            steps,
            seconds,
            context.world_size,
            torch.get_num_threads(),
            torch.cuda.get_device_name(context.device) if on_gpu else context.device,
            {"geo-refdiff": __version__, "torch": torch.__version__, "numpy": np.__version__},
        )


def write_model(
    folder: Path,
    network: nn.Module,
    described: ModelConfig,
    config: TrainConfig,
    sources: Sequence[Source],
    provenance: Provenance,
    figures: Mapping[str, float],
) -> str:
    """Write a model folder: config.json, weights and README.md, the model card.

    Args:
        folder: of the model; the card is named after the run that it is in.
        network: the trained one.
        described: as of `Denoiser.config`.
        config: of the run.
        sources: what it learned from, as in config.data.train.
        provenance: how it was made.
        figures: of the last validation, may be empty.

    Returns:
        The model's SHA-256.
    """
    described = replace(described, trained={"config": config.to_dict(), **asdict(provenance)})
    if isinstance(network, CompactNet):
        described = replace(described, receptive_field=receptive_radius(network, len(described.bands)))
    save_model(folder, described, network.state_dict(), "")
    sha256 = model_digest(folder)
    scales = described.scales or config.samples.factors()
    init = described.init
    pairs = zip(config.data.train, sources, strict=True)
    card = _CARD.format(
        name=folder.parent.name,
        kind=described.architecture.capitalize(),
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        bands=", ".join(described.bands),
        scales=f"{min(scales)}x to {max(scales)}x" if len(scales) > 1 else f"{scales[0]}x",
        classes=", ".join(described.classes),
        sha256=sha256,
        command=provenance.command,
        steps=provenance.steps,
        batch=config.training.batch,
        hours=provenance.seconds / 3600.0,
        processes=provenance.processes,
        threads=provenance.threads,
        device=provenance.device,
        versions=", ".join(f"{k} {v}" for k, v in provenance.versions.items()),
        seed=config.training.seed,
        init=f" It began with the weights of {init.model} (SHA-256 {init.sha256})." if init else "",
        toml=config.to_toml().strip(),
        sources="\n".join(f"- {text}: {len(data)} pairs, weight {weight:g}" for text, (data, weight) in pairs),
        fingerprint=provenance.fingerprint,
        attribution=config.data.attribution or _UNKNOWN,
        degradation=config.samples.degradation,
        figures=_table(figures, config),
    )
    write_bytes_atomic(folder / "README.md", card.encode())
    return sha256


def _table(figures: Mapping[str, float], config: TrainConfig) -> str:
    """Validation figures "method figure" as a table, a row a method."""
    if not figures:
        return "None: the run had no validation data."
    methods = list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in figures))
    columns = list(dict.fromkeys(key.rsplit(" ", 1)[1] for key in figures))
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    rows += [f"| {m} | " + " | ".join(f"{figures[f'{m} {c}']:.4f}" for c in columns) + " |" for m in methods]
    return (
        f"Last validation, at most {config.report.validation_tiles} tiles of {', '.join(config.data.validation)}, "
        f'no mask ("energy" is gradient energy over the truth\'s):\n\n' + "\n".join(rows)
    )
