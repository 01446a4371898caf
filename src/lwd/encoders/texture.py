from typing import Protocol
import torch.nn.functional as F
class TextureEncoder(Protocol):
    def encode(self, images): ...
    def decode(self, latents): ...
class PixelUnshuffle:
    def __init__(self,factor=2): self.factor=factor
    def encode(self,x): return F.pixel_unshuffle(x,self.factor)
    def decode(self,x): return F.pixel_shuffle(x,self.factor)
