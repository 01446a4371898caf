"""Networks of somebody else's, as ``model.name`` names them; nothing of lwd in them but the contract."""

import torch
from diffusers import DiTTransformer2DModel
from torch import nn


class UNet(nn.Module):
    """Two levels with a skip, batch norm (whose statistics are buffers), a REPA head, no blocks."""

    def __init__(self, channels, groups, num_classes, width, feature_dim):
        super().__init__()
        self.null_label = num_classes
        self.condition = nn.Linear(groups + num_classes + 1, width)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.leave = nn.Conv2d(2 * width, channels, 3, padding=1)
        self.drop = nn.Dropout(0.1)  # a name that the protocol has, too
        self.head = nn.Linear(width, feature_dim) if feature_dim else None

    def forward(self, z, times, labels, project=False):
        classes = nn.functional.one_hot(labels, self.null_label + 1).to(times.dtype)
        condition = self.condition(torch.cat([times, classes], dim=1))[..., None, None]
        high = torch.relu(self.norm(self.enter(z)) + condition)
        low = self.up(torch.relu(self.down(self.drop(high))))
        v = self.leave(torch.cat([high, low], dim=1))
        return (v, self.head(high.flatten(2).transpose(1, 2))) if project else v


def unet(layout, shape, num_classes, width=8, feature_dim=None):
    return UNet(layout.channels, len(layout.names), num_classes, width, feature_dim)


def plain_unet(layout, shape, num_classes):
    """Without dropout and batch norm, whose results depend on the process and on who else is in the batch."""
    network = unet(layout, shape, num_classes)
    network.norm, network.drop = nn.Identity(), nn.Identity()
    return network


class DiT(nn.Module):
    """diffusers' DiT: it knows one time, and is told how far the groups are on average; the rest comes as channels."""

    def __init__(self, layout, shape, num_classes, layers=2):
        super().__init__()
        extra = len(layout.names)
        self.null_label = num_classes
        self.dit = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=layout.channels + extra, num_layers=layers,
            out_channels=layout.channels, sample_size=shape[-1], patch_size=1, num_embeds_ada_norm=num_classes,
        )  # fmt: skip
        self.blocks = self.dit.transformer_blocks[1:]  # a part of the first is also called from outside
        for block in self.dit.transformer_blocks:
            block.norm1.emb.class_embedder.dropout_prob = 0.0  # labels are dropped outside

    def forward(self, z, times, labels):
        channels = times[..., None, None].expand(*times.shape, *z.shape[2:])
        return self.dit(torch.cat([z, channels], 1), 1000 * times.mean(1), labels, return_dict=False)[0]


def wrong_shape(layout, shape, num_classes):
    network = unet(layout, shape, num_classes)
    network.leave = nn.Conv2d(16, layout.channels + 1, 1)
    return network


def no_module(layout, shape, num_classes):
    return lambda z, times, labels: z


def forwards(layout, shape, num_classes, **settings):
    return unet(layout, shape, num_classes, **settings)


def needs(layout, shape, num_classes, size):
    return unet(layout, shape, num_classes, size)


def knows_no_shape(layout, num_classes):
    return unet(layout, (), num_classes)


def refuses(layout, shape, num_classes):
    raise ValueError("width 4 is odd today")


def broken(layout, shape, num_classes):
    return layout + shape


def no_parameters(layout, shape, num_classes):
    return nn.Identity()


def idle(layout, shape, num_classes):
    network = unet(layout, shape, num_classes)
    network.idle = nn.Linear(2, 2)
    return network


def frozen(layout, shape, num_classes):
    return unet(layout, shape, num_classes).requires_grad_(False)


def without_null(layout, shape, num_classes, width=4):
    network = unet(layout, shape, num_classes)
    del network.null_label
    network.forward = lambda z, times, labels: z
    return network


class Words(nn.Module):
    """Its conditions are dropped in another way."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def drop(self, condition, dropped):
        return condition.masked_fill(dropped, -1)

    def forward(self, z, times, condition):
        return self.layer(z) + condition[:, None, None, None]


def words(layout, shape, num_classes):
    return Words(layout.channels)


class Uncountable(UNet):
    """Cannot be run before there are weights worth running."""

    def forward(self, z, times, labels):
        if not z.abs().sum() and len(z) == 1:
            raise RuntimeError("no zeros, please")
        return super().forward(z, times, labels)


def uncountable(layout, shape, num_classes):
    return Uncountable(layout.channels, len(layout.names), num_classes, 4, None)


NOTHING = 3
