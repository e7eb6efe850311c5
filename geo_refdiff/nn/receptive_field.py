"""How far a compact network sees, found by experiment: NaN is carried by every operation that touches it."""

from __future__ import annotations

import torch

from geo_refdiff.nn.compact import CompactNet

_STEP = 128
_LIMIT = 2048


def receptive_radius(network: CompactNet, bands: int) -> int:
    """output pixels beyond which no input changes an output pixel of one evaluation, guidance included.

    A NaN in the up-sampled LR spreads over exactly the pixels that depend on it; the farthest over all phases of the
    network's lattice is the radius. Mask and reference enter through the same layers; the detail bands reach less far.

    Raises:
        ValueError: beyond 2048 pixels, as for a network that looks at the whole window.
    """
    multiple = network.multiple
    device = next(network.parameters()).device
    size = _STEP
    while size <= _LIMIT:
        side = size + -size % multiple
        middle = side // 2 // multiple * multiple
        farthest = 0
        for phase in (0, multiple - 1):
            lr = torch.zeros(1, bands, side, side, device=device)
            lr[..., middle + phase, middle + phase] = torch.nan
            mask = torch.zeros(1, 1, side, side, dtype=torch.uint8, device=device)
            with torch.no_grad():
                guidance = network.guidance(lr, torch.zeros_like(lr), mask)
                out = network(torch.zeros_like(lr), torch.zeros(1, device=device), guidance) + network.start(guidance)
            reached = torch.isnan(out)[0].any(dim=0).nonzero()
            farthest = max(farthest, int((reached - (middle + phase)).abs().max()))
        if farthest < side // 2 - multiple:
            return farthest
        size *= 2
    raise ValueError(f"the network sees farther than {_LIMIT // 2} pixels")
