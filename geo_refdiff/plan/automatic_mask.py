"""Whether a run detects its change mask by itself, and what that needs."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.change.detector import BANDS
from geo_refdiff.change.mask import MaskRecord
from geo_refdiff.classes import UNKNOWN_CLASS, class_index
from geo_refdiff.errors import OptionError
from geo_refdiff.options import AUTO, MaskOptions
from geo_refdiff.plan.records import Bands
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Restorer


def automatic_mask(
    asked: MaskOptions,
    model: Model,
    restorer: Restorer,
    bands: Bands,
    reference: bool,
    dropped: str | None,
) -> tuple[MaskRecord | None, list[str]]:
    """The record of a detected mask if it is asked for, or if no mask is given and the model can use one; and notes.

    The mask holds changes of sufficient confidence and is unknown elsewhere.

    Args:
        asked: what the user says of masks.
        model, restorer, bands: of the plan.
        reference: whether there is one to compare with.
        dropped: why one that was given is not used.

    Raises:
        OptionError: there is no reference, or the model lacks the bands or the classes of the detector, and the mask is
            asked for; a confidence is limited where there is none.
        ModelError: the detector is damaged.
    """
    named = asked.mask == AUTO
    if not named and asked.mask is not None:
        return None, []
    channels = detector_channels(model.bands, bands.channels)
    if dropped is not None:
        return None, ["without a reference no change can be looked for"] if named else []
    if not (reference and restorer.uses_mask and model.classes) or channels is None:
        if named:
            return None, [_obstacle(model, restorer, reference)]
        if asked.min_confidence is not None:
            raise OptionError("--min-confidence needs a confidence: give --mask-confidence, or --mask auto")
        return None, []
    from geo_refdiff.change.detector import AUTO_MIN_CONFIDENCE, CLASSES_FOR_MODEL, load_detector

    detector = load_detector()
    notes = [] if named else ["no mask was given: changes are looked for; --mask none leaves that out"]
    classes = [(index, class_index(name, model.classes)) for index, name in enumerate(detector.classes)]
    record = MaskRecord(
        "auto",
        values=tuple((i, CLASSES_FOR_MODEL.get(i, UNKNOWN_CLASS if own is None else own)) for i, own in classes),
        min_confidence=AUTO_MIN_CONFIDENCE if asked.min_confidence is None else asked.min_confidence,
        channels=channels,
        detector=detector.sha256,
    )
    return record, notes


def _obstacle(model: Model, restorer: Restorer, reference: bool) -> str:
    """The note why a mask that was asked for is not looked for, where the run continues without it."""
    if not reference:
        raise OptionError("--mask auto compares the scene with a reference: give --ref, or --mask none")
    if not restorer.uses_mask:
        return f"{restorer.name} does not use the mask"
    lacks = f"takes the bands {', '.join(model.bands)}" if model.classes else "names no classes"
    raise OptionError(
        f"--mask auto needs a model with classes and the bands {', '.join(BANDS[:3])}, but '{model.name}' {lacks}; "
        f"say --mask none"
    )


def detector_channels(names: Sequence[str], positions: Sequence[int | None]) -> tuple[int | None, ...] | None:
    """For the detector's bands the position among a plan's bands; None where red, green or blue is missing.

    Args:
        names: of the model's channels.
        positions: for each channel the position among the plan's bands, as `Bands.channels`; empty: one to one.
    """
    lowered = [name.strip().lower() for name in names]
    positions_of = list(positions) or list(range(len(lowered)))
    channels = tuple(positions_of[lowered.index(band)] if band in lowered else None for band in BANDS)
    return None if None in channels[:3] else channels
