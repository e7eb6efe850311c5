"""Blocks of the published network, under the published parameter names.

"Ref-Diff" is Dong et al., CVPR 2024 (arXiv 2403.17460); the residual block is that of the "DDPM++" network in Song et
al. 2021 (arXiv 2011.13456). Features are (N, C, h, w), noise embeddings (N, E), conditions (N, B, H, W) at the
window's full size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SFT_HIDDEN = 128
_SFT_SLOPE = 0.1
_MAX_PERIOD = 10000.0


class PositionalEmbedding(nn.Module):
    """c_noise -> sines and cosines at `width` / 2 frequencies from 1 down to 1 / 10000, both ends included."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"model_channels is {width}; it must be even and at least 4")
        self.width = width

    def forward(self, c_noise: Tensor) -> Tensor:
        """(N,) -> (N, width) float32: the sines, then the cosines."""
        half = self.width // 2
        ramp = torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - 1)
        angles = c_noise.to(torch.float32)[:, None] * (1.0 / _MAX_PERIOD) ** ramp
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResampleConv(nn.Conv2d):
    """A convolution that keeps the size, after doubling or halving it by the filter in the `resample_filter` buffer.

    The filter is the box [1, 1] along both axes: down is the mean of 2 x 2 pixels, up repeats each pixel 2 x 2.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, direction: str = "") -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.direction = direction
        if direction:
            self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, outputs, h', w'), h' = h, 2 h or h / 2."""
        if self.direction:
            channels = x.shape[1]
            taps = self.resample_filter.to(x.dtype).expand(channels, 1, 2, 2)
            if self.direction == "up":
                x = F.conv_transpose2d(x, 4 * taps, stride=2, groups=channels)
            else:
                x = F.conv2d(x, taps, stride=2, groups=channels)
        return super().forward(x)


class PublishedFeatureTransform(nn.Module):
    """Ref-Diff equation 3: F' = gamma(F_e (+) F) * F + beta(F_e (+) F), (+) joins channels.

    F_e is the raw condition, resized to the features by nearest neighbour; gamma (which ends in a sigmoid) and beta
    are each conv 3 x 3, leaky ReLU, conv 3 x 3. The compact network's `nn.layers.SpatialFeatureTransform` takes learned
    features at their own size and shares one hidden layer.
    """

    def __init__(self, condition: int, channels: int) -> None:
        super().__init__()
        self.mul_conv1 = nn.Conv2d(condition + channels, _SFT_HIDDEN, 3, padding=1)
        self.mul_conv2 = nn.Conv2d(_SFT_HIDDEN, channels, 3, padding=1)
        self.add_conv1 = nn.Conv2d(condition + channels, _SFT_HIDDEN, 3, padding=1)
        self.add_conv2 = nn.Conv2d(_SFT_HIDDEN, channels, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Features (N, C, h, w) under a condition (N, B, H, W); shape of the features."""
        resized = F.interpolate(condition, size=features.shape[-2:], mode="nearest")
        joined = torch.cat([features, resized], dim=1)
        gamma = self.mul_conv2(F.leaky_relu(self.mul_conv1(joined), _SFT_SLOPE)).sigmoid()
        beta = self.add_conv2(F.leaky_relu(self.add_conv1(joined), _SFT_SLOPE))
        result: Tensor = gamma * features + beta
        return result


class UNetBlock(nn.Module):
    """A DDPM++ residual block; with `condition` channels a change-aware block (Ref-Diff section 3.2, figure 2).

    Plain: norm, SiLU, conv, noise embedding, norm, SiLU, dropout, conv. Change-aware: norm, SFT with LR and mask,
    SiLU, conv, norm, SFT with reference and mask, noise embedding, SiLU, dropout, conv. Then the residual, and
    single-head attention where `attention` is set. Sums of two branches are scaled by sqrt(1/2). Group norm needs whole
    windows; the compact network's `nn.layers.ResidualBlock` norms each pixel by itself.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        direction: str = "",
        attention: bool = False,
        dropout: float = 0.0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm0 = group_norm(inputs)
        self.conv0 = ResampleConv(inputs, outputs, 3, direction)
        self.affine = nn.Linear(embedding, outputs)
        self.norm1 = group_norm(outputs)
        self.conv1 = ResampleConv(outputs, outputs, 3)
        projects = bool(direction) or inputs != outputs
        self.skip = ResampleConv(inputs, outputs, 1, direction) if projects else None
        self.sft0 = PublishedFeatureTransform(condition, inputs) if condition else None
        self.sft1 = PublishedFeatureTransform(condition, outputs) if condition else None
        self.norm2 = group_norm(outputs) if attention else None
        self.qkv = ResampleConv(outputs, 3 * outputs, 1) if attention else None
        self.proj = ResampleConv(outputs, outputs, 1) if attention else None
        for last in (self.conv1, self.proj):
            if last is not None:
                nn.init.normal_(last.weight, std=1e-5)

    def forward(
        self, x: Tensor, embedding: Tensor, semantic: Tensor | None = None, texture: Tensor | None = None
    ) -> Tensor:
        """x (N, C, h, w), embedding (N, E); semantic = [LR, mask] and texture = [Ref, mask], (N, B, H, W)."""
        h = self.norm0(x)
        if self.sft0 is not None and semantic is not None:
            h = self.sft0(h, semantic)
        h = self.conv0(F.silu(h))
        level = self.affine(embedding)[..., None, None]
        if self.sft1 is not None and texture is not None:
            h = self.sft1(self.norm1(h), texture) + level
        else:
            h = self.norm1(h + level)
        h = self.conv1(F.dropout(F.silu(h), self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * math.sqrt(0.5)
        return self._attend(x)

    def _attend(self, x: Tensor) -> Tensor:
        """Single-head attention over all pixels, with its own residual; without attention, x."""
        if self.norm2 is None or self.qkv is None or self.proj is None:
            return x
        count, channels, height, width = x.shape
        joint = self.qkv(self.norm2(x)).reshape(count, 1, channels, 3, height * width)
        query, key, value = joint.transpose(2, 4).unbind(3)
        seen = F.scaled_dot_product_attention(query, key, value)
        result: Tensor = x + self.proj(seen.transpose(2, 3).reshape(x.shape))
        return result * math.sqrt(0.5)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with min(32, C / 4) groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)
