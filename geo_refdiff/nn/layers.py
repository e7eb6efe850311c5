"""Layers of the compact network: everything local, nothing that looks across the whole window."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HIDDEN_SLOPE = 0.1
_TOP_FREQUENCY = 64.0


class PixelNorm(nn.Module):
    """Root-mean-square norm over the channels of each pixel; no statistics over space, so no window knows its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w), dtype of x; a pixel's scale, which all its channels share, is float32 or better."""
        precise = torch.promote_types(x.dtype, torch.float32)
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True, dtype=precise) + 1e-6)
        scaled, weight = x * scale, self.weight.view(1, -1, 1, 1)
        return (scaled * weight if torch.is_grad_enabled() else scaled.mul_(weight)).to(x.dtype)


class NoiseEmbedding(nn.Module):
    """c_noise -> a vector: Fourier features of ln(sigma) / 4, then two linear layers with SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.frequencies = tuple(_TOP_FREQUENCY ** (k / max(half - 1, 1)) for k in range(half))
        self.linear0 = nn.Linear(width, width)
        self.linear1 = nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=c_noise.device)
        angles = c_noise[:, None].float() * frequencies[None]
        features = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.linear0.weight.dtype)
        return F.silu(self.linear1(F.silu(self.linear0(features))))


class ResidualBlock(nn.Module):
    """norm, SiLU, conv 3 x 3, norm, SiLU, conv 3 x 3, added to the input; optional noise scale and shift."""

    reach = 2
    """pixels."""

    def __init__(self, inputs: int, outputs: int, embedding: int = 0) -> None:
        super().__init__()
        self.norm0 = PixelNorm(inputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.norm1 = PixelNorm(outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv1.weight)
        nn.init.zeros_(_bias(self.conv1))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        h = self.norm1(h)
        if self.affine is not None and embedding is not None:
            weight, bias = self.affine(embedding)[..., None, None].chunk(2, dim=1)
            h = h * (1 + weight) + bias
        result: Tensor = self.skip(x) + self.conv1(F.silu(h))
        return result


class SpatialFeatureTransform(nn.Module):
    """Ref-Diff equation 3: F' = gamma(F_e (+) F) * F + beta(F_e (+) F).

    A convolution over the concatenated guidance and features is the sum of one over each; the guidance's half does not
    depend on noise, so `prepare` computes it once a window.
    """

    def __init__(self, guidance: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.from_guidance = nn.Conv2d(guidance, hidden, 3, padding=1)
        self.from_features = nn.Conv2d(channels, hidden, 1, bias=False)
        self.to_maps = nn.Conv2d(hidden, 2 * channels, 1)
        nn.init.zeros_(self.to_maps.weight)
        nn.init.zeros_(_bias(self.to_maps))

    def prepare(self, guidance: Tensor) -> Tensor:
        """Guidance features F_e (N, guidance, h, w) -> their half of the hidden layer (N, hidden, h, w)."""
        hidden: Tensor = self.from_guidance(guidance)
        return hidden

    def forward(self, features: Tensor, prepared: Tensor) -> Tensor:
        hidden = F.leaky_relu(prepared + self.from_features(features), _HIDDEN_SLOPE)
        gamma, beta = self.to_maps(hidden).chunk(2, dim=1)
        result: Tensor = 2.0 * torch.sigmoid(gamma) * features + beta
        return result


class ChangeAwareBlock(nn.Module):
    """Decoder block of Ref-Diff, figure 2(c): semantics-guided SFT [LR, mask], then texture-guided SFT [Ref, mask].

    Either module can be left out, as in the paper's ablation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        guidance: int,
        hidden: int,
        embedding: int,
        semantic_sft: bool = True,
        ref_sft: bool = True,
    ) -> None:
        super().__init__()
        self.norm0 = PixelNorm(inputs)
        self.sft_lr = SpatialFeatureTransform(guidance, inputs, hidden) if semantic_sft else None
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = PixelNorm(outputs)
        self.sft_ref = SpatialFeatureTransform(guidance, outputs, hidden) if ref_sft else None
        self.affine = nn.Linear(embedding, outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv1.weight)
        nn.init.zeros_(_bias(self.conv1))

    def prepare(self, lr_guidance: Tensor, ref_guidance: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The parts that do not depend on noise; None for a module that is left out."""
        return (
            None if self.sft_lr is None else self.sft_lr.prepare(lr_guidance),
            None if self.sft_ref is None else self.sft_ref.prepare(ref_guidance),
        )

    def forward(self, x: Tensor, embedding: Tensor, prepared: tuple[Tensor | None, Tensor | None]) -> Tensor:
        h = _transform(self.sft_lr, self.norm0(x), prepared[0])
        h = self.conv0(F.silu(h))
        h = _transform(self.sft_ref, self.norm1(h), prepared[1])
        h = h + self.affine(embedding)[..., None, None]
        result: Tensor = self.skip(x) + self.conv1(F.silu(h))
        return result


def _transform(module: SpatialFeatureTransform | None, features: Tensor, prepared: Tensor | None) -> Tensor:
    if module is None or prepared is None:
        return features
    result: Tensor = module(features, prepared)
    return result


def down(inputs: int, outputs: int) -> nn.Module:
    """Half the resolution: 2 x 2 pixels to channels, then 1 x 1 convolution."""
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * inputs, outputs, 1))


def up(inputs: int, outputs: int, shuffled: bool) -> nn.Module:
    """Twice the resolution: 1 x 1 convolution, then bilinear interpolation, or channels to 2 x 2 pixels."""
    if shuffled:
        return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2))
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), Doubled())


class Doubled(nn.Module):
    """Twice the resolution by bilinear interpolation, pixel areas aligned."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise TypeError("a convolution without bias has none to set")
    return layer.bias
