"""latent-diffusion's AutoencoderKL, written anew from the public description with its parameter names: an oracle.

Encoder and decoder of CompVis `ldm/modules/diffusionmodules/model.py` at (ch 128, multipliers 1 1 2 2 4, two res
blocks, attention at 16 of 256, z 32, double z), and the two 1x1 convolutions of `ldm/models/autoencoder.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class Sampler(nn.Module):
    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1 if up else 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # zeros at the right and the bottom only


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        h = self.conv2(swish(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))  # (B, C, L)
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / x.shape[1] ** 0.5, dim=2)
        return x + self.proj_out(torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape))


class Level(nn.Module):
    def __init__(self, blocks: list[nn.Module], attention: list[nn.Module]) -> None:
        super().__init__()
        self.block, self.attn = nn.ModuleList(blocks), nn.ModuleList(attention)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1, self.attn_1 = ResnetBlock(channels, channels), AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 128, 3, padding=1)
        self.down = nn.ModuleList()
        width, resolution = 128, 256
        for i, multiplier in enumerate((1, 1, 2, 2, 4)):
            blocks, attention = [], []
            for _ in range(2):
                blocks.append(ResnetBlock(width, 128 * multiplier))
                width = 128 * multiplier
                attention += [AttnBlock(width)] if resolution == 16 else []
            self.down.append(Level(blocks, attention))
            if i < 4:
                self.down[-1].downsample = Sampler(width, up=False)
                resolution //= 2
        self.mid = Middle(width)
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, 64, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
            h = level.downsample(h) if hasattr(level, "downsample") else h
        return self.conv_out(swish(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, resolution = 512, 16
        self.conv_in = nn.Conv2d(32, width, 3, padding=1)
        self.mid = Middle(width)
        levels: dict[int, Level] = {}
        for i in (4, 3, 2, 1, 0):
            blocks, attention = [], []
            for _ in range(3):
                blocks.append(ResnetBlock(width, 128 * (1, 1, 2, 2, 4)[i]))
                width = 128 * (1, 1, 2, 2, 4)[i]
                attention += [AttnBlock(width)] if resolution == 16 else []
            levels[i] = Level(blocks, attention)
            if i:
                levels[i].upsample = Sampler(width, up=True)
                resolution *= 2
        self.up = nn.ModuleList(levels[i] for i in range(5))
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
            h = level.upsample(h) if hasattr(level, "upsample") else h
        return self.conv_out(swish(self.norm_out(h)))


class AutoencoderKL(nn.Module):
    """``moments`` (N, 64, h, w): mean, then log-variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = nn.Conv2d(64, 64, 1), nn.Conv2d(32, 32, 1)

    def moments(self, x: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))
