"""The published network of Ref-Diff (Dong et al., CVPR 2024, section 3.2, figure 2), written from its description.

Its modules carry the published parameter names, so that published weights load as they are:
``model.enc.{R}x{R}_block{i}`` and so on, R being the training size on that level. R only names things and places
attention: windows of any size run that the levels divide.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.nn.published_blocks import PositionalEmbedding, ResampleConv, UNetBlock, group_norm


class ChangeAwareUNet(nn.Module):
    """A U-Net whose encoder sees everything joined and whose decoder blocks are change-aware.

    Args:
        img_resolution: side of the training windows, output pixels.
        img_channels: bands of the image.
        model_channels: width of the first level before its multiplier.
        channel_mult: multiplier of each level, finest first.
        num_blocks: residual blocks a level in the encoder; the decoder has one more.
        attn_resolutions: the training sizes at which blocks attend, besides the bottleneck's first.
        dropout: probability, in training only.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        model_channels: int,
        channel_mult: tuple[int, ...],
        num_blocks: int,
        attn_resolutions: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        joined, guided = 3 * img_channels + 1, img_channels + 1
        width = 4 * model_channels
        settings: dict[str, Any] = {"embedding": width, "dropout": dropout}
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_layer0 = nn.Linear(model_channels, width)
        self.map_layer1 = nn.Linear(width, width)

        self.enc = nn.ModuleDict()
        name = f"{img_resolution}x{img_resolution}"
        self.enc[f"{name}_conv"] = ResampleConv(joined, model_channels, 3)
        channels, skips = model_channels, [model_channels]
        for level, factor in enumerate(channel_mult):
            size = img_resolution >> level
            name = f"{size}x{size}"
            if level:
                self.enc[f"{name}_down"] = UNetBlock(channels, channels, direction="down", **settings)
                skips.append(channels)
            for index in range(num_blocks):
                before, channels = channels, model_channels * factor
                attends = size in attn_resolutions
                self.enc[f"{name}_block{index}"] = UNetBlock(before, channels, attention=attends, **settings)
                skips.append(channels)

        self.dec = nn.ModuleDict()
        settings["condition"] = guided
        for level, factor in reversed(list(enumerate(channel_mult))):
            size = img_resolution >> level
            name = f"{size}x{size}"
            if level == len(channel_mult) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(channels, channels, attention=True, **settings)
                self.dec[f"{name}_in1"] = UNetBlock(channels, channels, **settings)
            else:
                self.dec[f"{name}_up"] = UNetBlock(channels, channels, direction="up", **settings)
            for index in range(num_blocks + 1):
                before, channels = channels + skips.pop(), model_channels * factor
                attends = index == num_blocks and size in attn_resolutions
                self.dec[f"{name}_block{index}"] = UNetBlock(before, channels, attention=attends, **settings)
        self.dec[f"{name}_aux_norm"] = group_norm(channels)
        self.dec[f"{name}_aux_conv"] = ResampleConv(channels, img_channels, 3)
        nn.init.normal_(self.dec[f"{name}_aux_conv"].get_parameter("weight"), std=1e-5)

    def forward(self, x: Tensor, c_noise: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
        """F(x; c_noise | lr, ref, mask), shape of x."""
        features = self.map_noise(c_noise).to(x.dtype)
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(features))))
        semantic, texture = torch.cat([lr, mask], dim=1), torch.cat([ref, mask], dim=1)

        h = torch.cat([x, lr, ref, mask], dim=1)
        skips: list[Tensor] = []
        for block in self.enc.values():
            h = block(h, embedding) if isinstance(block, UNetBlock) else block(h)
            skips.append(h)
        for name, block in self.dec.items():
            if not isinstance(block, UNetBlock):
                h = F.silu(block(h)) if name.endswith("_aux_norm") else block(h)
                continue
            if "_block" in name:
                h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, embedding, semantic, texture)
        return h


class PublishedUNet(nn.Module):
    """The published network as a checkpoint holds it: everything under ``model.``.

    ``multiple`` is what a window's height and width must be divisible by. Group norm and attention look at the whole
    window, so the network has no finite receptive field (``receptive_field`` is None).
    """

    receptive_field: None = None

    def __init__(
        self,
        img_resolution: int = 256,
        img_channels: int = 3,
        model_channels: int = 128,
        channel_mult: tuple[int, ...] = (2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channel_mult) - 1)
        if not channel_mult or img_resolution % self.multiple:
            raise ValueError(f"img_resolution {img_resolution} does not halve for each of {channel_mult}")
        self.model = ChangeAwareUNet(
            img_resolution, img_channels, model_channels, channel_mult, num_blocks, attn_resolutions, dropout
        )

    def forward(self, x: Tensor, c_noise: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
        """F of EDM equation 7.

        Args:
            x: (N, C, H, W), the noisy image, already scaled by c_in.
            c_noise: (N,), ln(sigma) / 4.
            lr: (N, C, H, W), the scene up-sampled to the output grid, model units, not scaled.
            ref: (N, C, H, W), the reference, likewise.
            mask: (N, 1, H, W), the change mask as in training.

        Returns:
            (N, C, H, W), in the dtype of x.
        """
        out: Tensor = self.model(x, c_noise, lr, ref, mask)
        return out
