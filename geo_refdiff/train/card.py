"""The model card that a training run writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geo_refdiff.diffusion.config import ModelConfig
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.samples import Source

_TEXT = """# Model card: {name}

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
class Making:
    """How a model came about, for its card and its config.json.

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


def model_card(
    name: str,
    described: ModelConfig,
    config: TrainConfig,
    sources: Sequence[Source],
    making: Making,
    figures: Mapping[str, float],
    parameters: int,
    sha256: str,
) -> str:
    """README.md of a model folder.

    Args:
        name: of the model.
        described: config.json.
        config: of the run.
        sources: what it learned from, as in config.data.train.
        making: how it came about.
        figures: of the last validation, may be empty.
        parameters: how many the network has.
        sha256: of the model.
    """
    scales = described.scales or config.samples.factors()
    init = described.init
    pairs = zip(config.data.train, sources, strict=True)
    return _TEXT.format(
        name=name,
        kind=described.architecture.capitalize(),
        parameters=parameters / 1e6,
        bands=", ".join(described.bands),
        scales=f"{min(scales)}x to {max(scales)}x" if len(scales) > 1 else f"{scales[0]}x",
        classes=", ".join(described.classes),
        sha256=sha256,
        command=making.command,
        steps=making.steps,
        batch=config.training.batch,
        hours=making.seconds / 3600.0,
        processes=making.processes,
        threads=making.threads,
        device=making.device,
        versions=", ".join(f"{k} {v}" for k, v in making.versions.items()),
        seed=config.training.seed,
        init=f" It began with the weights of {init.model} (SHA-256 {init.sha256})." if init else "",
        toml=config.to_toml().strip(),
        sources="\n".join(f"- {text}: {len(data)} pairs, weight {weight:g}" for text, (data, weight) in pairs),
        fingerprint=making.fingerprint,
        attribution=config.data.attribution or _UNKNOWN,
        degradation=config.samples.degradation,
        figures=_table(figures, config),
    )


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
