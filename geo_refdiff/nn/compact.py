"""The compact network: Ref-Diff made affordable.

Two networks share the learned extractors of the guidance. What does not depend on noise (extractors, mean, gate)
is computed once a window; only the small change-aware U-Net runs at every noise level. All is local: per-pixel norm,
convolutions, no attention, so the receptive field is finite and the same everywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.nn.blur import blur_reach, gaussian_blur
from geo_refdiff.nn.layers import (
    ChangeAwareBlock,
    Doubled,
    NoiseEmbedding,
    PixelNorm,
    ResidualBlock,
    down,
    up,
)
from geo_refdiff.nn.strips import in_strips

_DETAIL_SIGMAS = (1.2, 4.0)
"""Gaussian blurs, output pixels, that split the reference's high-pass into a fine and a medium band."""

_TRUSTED = (0.2, 0.3)
"""Mean shares to copy below which a reference is not trusted, and above which it is."""
_TRUST_CELL, _TRUST_REACH = 4, 4
"""Output pixels a cell, cells on each side, twice: where that mean is taken."""


Count = Annotated[int, Meta(ge=1)]
_Channels = Annotated[int, Meta(ge=1, le=1 << 16)]


@dataclass(frozen=True, slots=True)
class CompactSize:
    """What the network's size is made of; `config.json` holds these under "network", a training config under [model].

    Attributes:
        unshuffle: output pixels along one feature pixel of the first level.
        widths: channels of each level, finest first.
        full_width: channels of the convolutions at full resolution.
        half_width: channels of the heads at half resolution, and all enlarging is by interpolation; 0 = channels are
            shuffled to pixels, which may leave a lattice of the period of a level.
        hidden: hidden channels of the SFT modules.
        embedding: width of the noise embedding.
        texture: whether the start has detail of its own beside the mean and the reference's.
        around_start: whether noise is preconditioned around the start instead of the mean.
        ref, mask: whether the network looks at the reference and at the mask at all.
        ref_sft, semantic_sft: whether decoder blocks have the texture-guided and the semantics-guided SFT module.
    """

    unshuffle: Annotated[int, Meta(ge=1, le=64)] = 4
    widths: Annotated[tuple[_Channels, ...], Meta(min_length=1, max_length=8)] = (48, 72, 96)
    full_width: _Channels = 16
    half_width: Annotated[int, Meta(ge=0, le=1 << 16)] = 0
    hidden: _Channels = 48
    embedding: _Channels = 64
    texture: bool = False
    around_start: bool = False
    ref: bool = True
    mask: bool = True
    ref_sft: bool = True
    semantic_sft: bool = True

    @property
    def multiple(self) -> int:
        """Window height and width must be divisible by this."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))


class Guidance(NamedTuple):
    """All that the denoiser needs of the conditions; does not depend on noise.

    Attributes:
        mean: (N, C, H, W) estimate of the conditional mean, model units.
        gate: (N, 2, H, W) in 0..1, the share of the truth's fine and medium detail that the reference's predicts.
        detail: (N, 2 C, H, W) the reference's fine and medium detail, model units, 0 where it is missing.
        copy: (N, 2, H, W) in 0..1, how much of the mean's detail gives way to the reference's in `CompactNet.start`.
        texture: (N, C, H, W) detail that `CompactNet.start` adds of itself, model units.
        plain: (N, C, H, W) what `CompactNet.plain_start` makes of the above, model units.
        entry: features added at the U-Net's entrance, (N, widths[0], h, w); None where it is for the start alone.
        prepared: the guidance's half of both SFT modules, a pair a decoder level, coarsest first; or empty.
    """

    mean: Tensor
    gate: Tensor
    detail: Tensor
    copy: Tensor
    texture: Tensor
    plain: Tensor
    entry: Tensor | None
    prepared: tuple[tuple[Tensor | None, Tensor | None], ...]


class DetailBands(nn.Module):
    """Splits an image into fine and medium detail by two Gaussian blurs; pixels that are missing carry no weight."""

    reach = blur_reach(max(_DETAIL_SIGMAS))
    """output pixels."""

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Image (N, C, H, W), valid (N, 1, H, W) 0/1 -> (N, 2 C, H, W): fine, then medium; 0 where invalid."""
        fine, wide = (_blurred(image, sigma, valid) for sigma in _DETAIL_SIGMAS)
        detail = torch.cat([image - fine, fine - wide], dim=1)
        return detail if valid is None else detail * valid


def _blurred(image: Tensor, sigma: float, valid: Tensor | None) -> Tensor:
    """Gaussian mean of the valid pixels, in the image's own precision."""
    if valid is None:
        return gaussian_blur(image, sigma)
    x = gaussian_blur(torch.cat([image, valid.to(image.dtype)], dim=1), sigma)
    return x[:, :-1] / x[:, -1:].clamp(min=1e-3)


def opened(copy: Tensor, exponent: float) -> Tensor:
    """Shares of the reference's detail to copy, raised where the reference is trusted all around.

    Losses by the pixel keep these shares lower than looks right. An exponent for all of them would raise those of a
    reference of another place most, so it holds where their mean over some 36 px is above 0.3, and fades out to 1
    where that is below 0.2.

    Args:
        copy: (N, 2, H, W) in 0..1.
        exponent: above 0, at most 1.
    """
    cells = F.avg_pool2d(copy.float().mean(dim=1, keepdim=True), _TRUST_CELL, ceil_mode=True)
    for _ in range(2):
        cells = F.avg_pool2d(cells, 2 * _TRUST_REACH + 1, 1, _TRUST_REACH, count_include_pad=False)
    low, high = _TRUSTED
    trust = F.interpolate(((cells - low) / (high - low)).clamp(0, 1), scale_factor=_TRUST_CELL, mode="bilinear")
    trust = trust[..., : copy.shape[-2], : copy.shape[-1]]
    return torch.where(copy > 0, copy.float().clamp(min=1e-6) ** (1 - (1 - exponent) * trust), 0.0).to(copy.dtype)


class Extractor(nn.Module):
    """Guidance image -> features F_e at each level."""

    def __init__(self, channels: int, size: CompactSize) -> None:
        super().__init__()
        w, self.unshuffle = size.widths, size.unshuffle
        self.stem = nn.Sequential(nn.PixelUnshuffle(size.unshuffle), nn.Conv2d(channels * size.unshuffle**2, w[0], 1))
        self.blocks = nn.ModuleList([ResidualBlock(c, c) for c in w])
        self.downs = nn.ModuleList([down(a, b) for a, b in itertools.pairwise(w)])

    def forward(self, guidance: Callable[..., Tensor], *images: Tensor) -> list[Tensor]:
        """Features of `guidance(*images)`, which looks at one pixel for another, at each level."""

        def first(*parts: Tensor) -> tuple[Tensor]:
            return (self.blocks[0](_cells(self.stem, guidance(*parts))),)

        rows = images[0].shape[-2] // self.unshuffle
        features = [*in_strips(first, *images, rows=rows, reach=ResidualBlock.reach)]
        for shrink, block in zip(self.downs, list(self.blocks)[1:], strict=True):
            features.append(block(shrink(features[-1])))
        return features


def _cells(stem: nn.Sequential, x: Tensor) -> Tensor:
    """What the stem computes, pixels to channels and a 1 x 1 convolution, as one strided convolution."""
    unshuffle, layer = stem
    if not isinstance(unshuffle, nn.PixelUnshuffle) or not isinstance(layer, nn.Conv2d):
        raise TypeError("a stem is a PixelUnshuffle and a Conv2d")
    side = unshuffle.downscale_factor
    return F.conv2d(x, layer.weight.view(len(layer.weight), -1, side, side), layer.bias, stride=side)


def _joined(*images: Tensor) -> Tensor:
    """Images one after the other along the channels, in the dtype of layers and on a CPU in the layout of the first.

    Layers would round a float32 whole again; what `torch.cat` makes of two layouts is in neither, slowly.
    """
    kind, first = images[0].device.type, images[0]
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else first.dtype
    parts = [image.to(dtype) for image in images]
    if kind == "cpu" and first.is_contiguous(memory_format=torch.channels_last):
        parts = [part.contiguous(memory_format=torch.channels_last) for part in parts]
    return torch.cat(parts, dim=1)


class FullResolutionHead(nn.Module):
    """Coarse features -> pixels: channels to pixels, then 3 x 3 convolutions at full resolution.

    Without the latter the shuffle leaves a visible lattice of the unshuffle's period.
    """

    reach = 3
    """rows of the features, fewer where the unshuffle is larger than 1."""

    def __init__(self, inputs: int, extra: int, outputs: int, size: CompactSize) -> None:
        super().__init__()
        f = size.full_width
        self.norm = PixelNorm(inputs)
        self.spread = nn.Conv2d(inputs, f * size.unshuffle**2, 1)
        self.shuffle = nn.PixelShuffle(size.unshuffle)
        self.conv0 = nn.Conv2d(f + extra, f, 3, padding=1)
        self.conv1 = nn.Conv2d(f, f, 3, padding=1)
        self.conv2 = nn.Conv2d(f, outputs, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, features: Tensor, extra: Tensor) -> Tensor:
        x = self.shuffle(self.spread(F.silu(self.norm(features))))
        x = F.silu(self.conv0(_joined(x, extra)))
        x = F.silu(self.conv1(x)) + x
        result: Tensor = self.conv2(x)
        return result


class ResizeHead(nn.Module):
    """Coarse features -> pixels: interpolated to half resolution, convolved, to full resolution, convolved.

    Interpolation has no phase of its own, so that nothing repeats with the unshuffle's period; what is between its
    pixels comes from the inputs at full resolution.
    """

    reach = 3
    """rows of the features."""

    def __init__(self, inputs: int, extra: int, outputs: int, size: CompactSize) -> None:
        super().__init__()
        if size.unshuffle != 4:
            raise ValueError(f"heads that enlarge by interpolation need unshuffle 4, not {size.unshuffle}")
        f = size.full_width
        self.doubled = Doubled()
        self.norm = PixelNorm(inputs)
        self.middle = nn.Conv2d(inputs, size.half_width, 3, padding=1)
        self.narrow = nn.Conv2d(size.half_width, f, 1)
        self.conv0 = nn.Conv2d(f + extra, f, 3, padding=1)
        self.conv1 = nn.Conv2d(f, outputs, 3, padding=1)
        nn.init.zeros_(self.conv1.weight)

    def forward(self, features: Tensor, extra: Tensor) -> Tensor:
        x = F.silu(self.middle(self.doubled(F.silu(self.norm(features)))))
        x = self.doubled(self.narrow(x))
        x = F.silu(self.conv0(_joined(x, extra)))
        result: Tensor = self.conv1(x)
        return result


def _head(inputs: int, extra: int, outputs: int, size: CompactSize) -> FullResolutionHead | ResizeHead:
    return (ResizeHead if size.half_width else FullResolutionHead)(inputs, extra, outputs, size)


class _Guided(NamedTuple):
    lr_features: list[Tensor]
    ref_features: list[Tensor]
    finest: Tensor
    mean: Tensor
    gate: Tensor
    detail: Tensor
    copy: Tensor
    texture: Tensor


class GuidanceNet(nn.Module):
    """Conditions -> guidance features, mean estimate, gate and detail."""

    def __init__(self, bands: int, classes: int, size: CompactSize) -> None:
        super().__init__()
        self.bands, self.classes, self.size = bands, classes, size
        w = size.widths
        self.lr_extractor = Extractor(bands + classes, size)
        self.ref_extractor = Extractor(2 * bands + 1 + classes, size)
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        below = 0
        for level in reversed(range(len(w))):
            self.blocks.append(ResidualBlock(2 * w[level] + below, w[level]))
            if level:
                below = w[level - 1]
                self.ups.append(up(w[level], below, shuffled=not size.half_width))
        self.head = _head(w[0], 4 * bands, 2 * bands + 4 if size.texture else bands + 2, size)
        self.detail_bands = DetailBands()

    def forward(self, lr: Tensor, ref: Tensor, mask: Tensor) -> _Guided:
        finite = torch.isfinite(ref).all(dim=1, keepdim=True)
        if not self.size.ref:
            finite = torch.zeros_like(finite)
        valid, c = finite.to(ref.dtype), self.bands
        whole = ref.device.type == "cpu" and bool(finite.all())  # on a GPU asking would wait for it
        if not whole:
            ref = torch.where(finite, ref, torch.zeros_like(ref))

        def changes(mask: Tensor) -> Tensor:
            planes = one_hot(mask, self.classes, lr.dtype)
            return planes if self.size.mask else torch.zeros_like(planes)

        def where_valid(image: Tensor, valid: Tensor) -> Tensor:
            return image if whole else image * valid

        def of_reference(ref: Tensor, lr: Tensor, valid: Tensor, mask: Tensor) -> Tensor:
            return _joined(ref, where_valid(ref - lr, valid), valid, changes(mask))

        def bands(*parts: Tensor) -> tuple[Tensor]:
            return (self.detail_bands(*parts),)

        def pixels(features: Tensor, lr: Tensor, ref: Tensor, valid: Tensor, detail: Tensor) -> tuple[Tensor, ...]:
            out = self.head(features, _joined(lr, where_valid(ref - lr, valid), detail))
            out = out.contiguous().to(lr.dtype)  # autocast's is coarser
            gates = where_valid(torch.sigmoid(out[:, c : c + (4 if self.size.texture else 2)] - 1.0), valid)
            return lr + out[:, :c], *gates.chunk(gates.shape[1] // 2, dim=1), out[:, c + gates.shape[1] :]

        lr_features = self.lr_extractor(lambda lr, mask: _joined(lr, changes(mask)), lr, mask)
        ref_features = self.ref_extractor(of_reference, ref, lr, valid, mask)
        x: Tensor | None = None
        for index, block in enumerate(self.blocks):
            level = len(self.blocks) - 1 - index
            parts = [lr_features[level], ref_features[level]]
            if x is not None:
                parts.append(self.ups[index - 1](x))
            (x,) = in_strips(
                lambda *parts, block=block: (block(torch.cat(parts, dim=1)),),
                *parts,
                rows=parts[0].shape[-2],
                reach=ResidualBlock.reach,
            )
        if x is None:
            raise ValueError("a network needs at least one level")
        given = (ref,) if whole else (ref, valid)
        (detail,) = in_strips(bands, *given, rows=ref.shape[-2], reach=DetailBands.reach)
        mean, *gates, texture = in_strips(pixels, x, lr, ref, valid, detail, rows=x.shape[-2], reach=self.head.reach)
        gate, copy = gates[0], gates[-1]
        if not self.size.texture:
            texture = torch.zeros_like(mean)
        return _Guided(lr_features, ref_features, x, mean, gate, detail, copy, texture)


class CompactNet(nn.Module):
    """Guidance once a window, then a change-aware U-Net at each noise level.

    Args:
        bands: image channels.
        classes: mask classes, class 0 (no change) included.
        size: widths.
        copy_exponent: outside training, of the share of the reference's detail that the start copies, see `opened`;
            1 = as trained.
        receptive_field: output px beyond which nothing changes a pixel of one evaluation; stated by the model's config.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        size: CompactSize,
        copy_exponent: float = 1.0,
        receptive_field: int | None = None,
    ) -> None:
        super().__init__()
        self.size, self.receptive_field = size, receptive_field
        self.copy_exponent = copy_exponent
        self.multiple = size.multiple
        w, e = size.widths, size.embedding
        self.guide_net = GuidanceNet(bands, classes, size)
        self.embedding = NoiseEmbedding(e)
        self.entry = nn.Conv2d(3 * w[0], w[0], 1)
        self.stem = nn.Sequential(nn.PixelUnshuffle(size.unshuffle), nn.Conv2d(bands * size.unshuffle**2, w[0], 1))
        self.encoder = nn.ModuleList([ResidualBlock(c, c, e) for c in w])
        self.downs = nn.ModuleList([down(a, b) for a, b in itertools.pairwise(w)])
        self.decoder = nn.ModuleList()
        self.ups = nn.ModuleList()
        below = 0
        for level in reversed(range(len(w))):
            self.decoder.append(
                ChangeAwareBlock(w[level] + below, w[level], w[level], size.hidden, e, size.semantic_sft, size.ref_sft)
            )
            if level:
                below = w[level - 1]
                self.ups.append(up(w[level], below, shuffled=not size.half_width))
        self.head = _head(w[0], 2 * bands if size.around_start else bands, bands, size)

    def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Guidance:
        """Everything that does not depend on noise.

        Args:
            lr: (N, C, H, W) the scene up-sampled to the output grid (`degrade.upsample`), model units.
            ref: (N, C, H, W) reference in the scene's radiometry, model units; NaN = missing.
            mask: (N, 1, H, W) class indices, 255 = no change known.
            start_only: leaves out what only `forward` needs.
        """
        g = self.guide_net(lr, ref, mask)
        if not self.training and self.copy_exponent != 1.0:
            g = g._replace(copy=opened(g.copy, self.copy_exponent))
        plain = self.plain_start(g.mean.detach(), g.detail, g.copy, g.texture)
        if start_only:
            return Guidance(g.mean, g.gate, g.detail, g.copy, g.texture, plain, None, ())
        entry = self.entry(torch.cat([g.lr_features[0], g.ref_features[0], g.finest], dim=1))
        prepared = tuple(
            block.prepare(lr_guidance, ref_guidance)
            for block, lr_guidance, ref_guidance in zip(
                self._decoder_blocks(), reversed(g.lr_features), reversed(g.ref_features), strict=True
            )
        )
        return Guidance(g.mean, g.gate, g.detail, g.copy, g.texture, plain, entry, prepared)

    def base(self, guidance: Guidance) -> Tensor:
        """The image around which noise is preconditioned: the start or the mean estimate, (N, C, H, W)."""
        return guidance.plain if self.size.around_start else guidance.mean

    def mean(self, guidance: Guidance) -> Tensor:
        """The mean estimate, (N, C, H, W)."""
        return guidance.mean

    def plain_start(self, mean: Tensor, detail: Tensor, copy: Tensor, texture: Tensor) -> Tensor:
        """The mean, its detail replaced by the reference's as `copy` says, and texture.

        Losses of the start do not move the mean.
        """

        def combined(mean: Tensor, detail: Tensor, copy: Tensor, texture: Tensor) -> tuple[Tensor]:
            fine, medium = (detail - self.guide_net.detail_bands(mean)).chunk(2, dim=1)
            return (mean + copy[:, :1] * fine + copy[:, 1:] * medium + texture,)

        (start,) = in_strips(combined, mean, detail, copy, texture, rows=mean.shape[-2], reach=DetailBands.reach)
        return start

    def start(self, guidance: Guidance) -> Tensor:
        """The image where sampling begins, (N, C, H, W)."""
        return guidance.plain

    def forward(self, x: Tensor, c_noise: Tensor, guidance: Guidance) -> Tensor:
        """F of EDM equation 7: x (N, C, H, W), already scaled by c_in; c_noise (N,)."""
        embedding = self.embedding(c_noise)
        if guidance.entry is None:
            raise ValueError("this guidance is for the start alone: ask for it with start_only=False")
        h = _cells(self.stem, x) + guidance.entry
        skips: list[Tensor] = []
        for index, block in enumerate(self.encoder):
            h = block(h if index == 0 else self.downs[index - 1](h), embedding)
            skips.append(h)
        result = self.decoder[0](skips[-1], embedding, guidance.prepared[0])
        for index in range(1, len(self.decoder)):
            joined = torch.cat([skips[-1 - index], self.ups[index - 1](result)], dim=1)
            result = self.decoder[index](joined, embedding, guidance.prepared[index])
        beside = torch.cat([x, guidance.plain - guidance.mean], dim=1) if self.size.around_start else x
        out: Tensor = self.head(result, beside)
        return out

    def _decoder_blocks(self) -> list[ChangeAwareBlock]:
        return [block for block in self.decoder if isinstance(block, ChangeAwareBlock)]


def one_hot(mask: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Class indices (N, 1, H, W) -> (N, classes, H, W) of 0 and 1; a value outside 0..classes-1 gives zeros."""
    held = mask.round() if mask.is_floating_point() else mask
    return held.eq(torch.arange(classes, dtype=held.dtype, device=held.device).view(1, -1, 1, 1)).to(dtype)
