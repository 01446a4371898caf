"""Networks: plain functions of (z, local times, condition)."""

from lwd.models.flops import forward_flops, training_flops
from lwd.models.lightningdit import LightningDiT
from lwd.models.network import Network, dropper, null_label
from lwd.models.pretrained import load_model
from lwd.models.record import record_of
from lwd.models.registry import register
from lwd.models.settings import ModelConfig
from lwd.models.sfd import load_sfd_checkpoint, save_sfd_checkpoint
from lwd.models.sizes import SIZES, create
from lwd.runtime.hub import WEIGHTS, load_weights, model_files, save_model

__all__ = [
    "SIZES",
    "WEIGHTS",
    "LightningDiT",
    "ModelConfig",
    "Network",
    "create",
    "dropper",
    "forward_flops",
    "load_model",
    "load_sfd_checkpoint",
    "load_weights",
    "model_files",
    "null_label",
    "record_of",
    "register",
    "save_model",
    "save_sfd_checkpoint",
    "training_flops",
]
