"""Two threads, and helper modules of this folder importable from its subfolders."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
