"""What the released code is, written down again: the tensors of an S/1 checkpoint, and the network in NumPy.

The second implementation is from the description alone (EVA-02's rotary embedding, MAE's table, adaLN-zero).
"""

import math

import numpy as np
import torch

# The tensors of a released S/1-shaped checkpoint, by released name; the twelve blocks are alike.
S1_BLOCK = {
    "norm1.weight": (384,),
    "norm2.weight": (384,),
    "attn.qkv.weight": (1152, 384),
    "attn.qkv.bias": (1152,),
    "attn.q_norm.weight": (64,),
    "attn.k_norm.weight": (64,),
    "attn.proj.weight": (384, 384),
    "attn.proj.bias": (384,),
    "mlp.w12.weight": (2048, 384),
    "mlp.w12.bias": (2048,),
    "mlp.w3.weight": (384, 1024),
    "mlp.w3.bias": (384,),
    "adaLN_modulation.1.weight": (2304, 384),
    "adaLN_modulation.1.bias": (2304,),
}
S1_REST = {
    "pos_embed": (1, 256, 384),
    "x_embedder.proj.weight": (384, 48, 1, 1),
    "x_embedder.proj.bias": (384,),
    "t_embedder_sem.mlp.0.weight": (192, 256),
    "t_embedder_sem.mlp.0.bias": (192,),
    "t_embedder_sem.mlp.2.weight": (192, 192),
    "t_embedder_sem.mlp.2.bias": (192,),
    "t_embedder_tex.mlp.0.weight": (192, 256),
    "t_embedder_tex.mlp.0.bias": (192,),
    "t_embedder_tex.mlp.2.weight": (192, 192),
    "t_embedder_tex.mlp.2.bias": (192,),
    "y_embedder.embedding_table.weight": (1001, 384),
    "feat_rope.freqs_cos": (256, 64),
    "feat_rope.freqs_sin": (256, 64),
    "final_layer.norm_final.weight": (384,),
    "final_layer.linear.weight": (48, 384),
    "final_layer.linear.bias": (48,),
    "final_layer.adaLN_modulation.1.weight": (768, 384),
    "final_layer.adaLN_modulation.1.bias": (768,),
    "repa_projector.0.weight": (2048, 384),
    "repa_projector.0.bias": (2048,),
    "repa_projector.2.weight": (2048, 2048),
    "repa_projector.2.bias": (2048,),
    "repa_projector.4.weight": (768, 2048),
    "repa_projector.4.bias": (768,),
}
RENAMED = {
    "x_embedder.proj.": "x_embedder.",
    "t_embedder_sem.": "t_embedder.by_group.sem.",
    "t_embedder_tex.": "t_embedder.by_group.tex.",
    "y_embedder.embedding_table.": "y_embedder.",
    "feat_rope.freqs_cos": "rotary_cos",
    "feat_rope.freqs_sin": "rotary_sin",
}


def our_name(name):
    """The name that a released tensor has here; the rotary tables are buffers that are not saved."""
    prefix = next((old for old in RENAMED if name.startswith(old)), "")
    return name.replace(prefix, RENAMED.get(prefix, ""), 1)


def released_s1():
    """All names and shapes."""
    return S1_REST | {f"blocks.{i}.{name}": shape for i in range(12) for name, shape in S1_BLOCK.items()}


def position_table(width, grid):
    omega = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
    rows = []
    for row in range(grid):
        for column in range(grid):
            parts = [np.sin(column * omega), np.cos(column * omega), np.sin(row * omega), np.cos(row * omega)]
            rows.append(np.concatenate(parts))
    return np.array(rows)


def rotary_angles(head, grid):
    """(tokens, head / 2): one angle per pair of channels; rows turn the first half of the pairs, columns the second."""
    frequencies = np.array([1 / 10000 ** (2 * i / (head // 2)) for i in range(head // 4)])
    return np.array([np.concatenate([r * frequencies, c * frequencies]) for r in range(grid) for c in range(grid)])


def silu(x):
    return x / (1 + np.exp(-x))


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def rms(w, name, x):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w[f"{name}.weight"]


def turn(x, angles):
    """Pairs (a, b) of neighbouring channels as complex numbers a + ib, times e^(i angle)."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def attention(w, name, x, heads, angles):
    width = x.shape[-1]
    head = width // heads
    qkv = linear(w, f"{name}.qkv", x)
    out = np.empty_like(x)
    for h in range(heads):
        q, k, v = (qkv[:, :, part * width + h * head : part * width + (h + 1) * head] for part in range(3))
        q, k = turn(rms(w, f"{name}.q_norm", q), angles), turn(rms(w, f"{name}.k_norm", k), angles)
        weights = np.exp(np.einsum("bid,bjd->bij", q, k) / np.sqrt(head))
        weights /= weights.sum(-1, keepdims=True)
        out[:, :, h * head : (h + 1) * head] = weights @ v
    return linear(w, f"{name}.proj", out)


def reference(model, z, times, labels, *, heads, order):
    """v and the REPA projection, in float64; no projection where ``repa_block`` is 0."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    z, times, p = z.double().numpy(), times.double().numpy(), model.patch_size
    batch, channels, size, _ = z.shape
    grid, width = size // p, w["x_embedder.weight"].shape[0]
    patches = z.reshape(batch, channels, grid, p, grid, p)
    x = np.einsum("bchpwq,dcpq->bhwd", patches, w["x_embedder.weight"]).reshape(batch, grid * grid, width)
    x = x + w["x_embedder.bias"] + position_table(width, grid)

    embedded = []
    for name in order:
        t = times[:, model.layout.names.index(name), None]
        angles = t * np.exp(-math.log(10000) * np.arange(128) / 128)
        wave = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        mlp = f"t_embedder.by_group.{name}.mlp"
        embedded.append(linear(w, f"{mlp}.2", silu(linear(w, f"{mlp}.0", wave))))
    condition = silu(np.concatenate(embedded, axis=1) + w["y_embedder.weight"][labels.numpy()])

    angles = rotary_angles(width // heads, grid)
    for i in range(len(model.blocks)):
        b = f"blocks.{i}"
        chunks = np.split(linear(w, f"{b}.adaLN_modulation.1", condition)[:, None], 6, axis=-1)
        shift, scale, gate = chunks[:3]
        x = x + gate * attention(w, f"{b}.attn", rms(w, f"{b}.norm1", x) * (1 + scale) + shift, heads, angles)
        shift, scale, gate = chunks[3:]
        hidden = linear(w, f"{b}.mlp.w12", rms(w, f"{b}.norm2", x) * (1 + scale) + shift)
        half = int(2 / 3 * 4 * width)
        x = x + gate * linear(w, f"{b}.mlp.w3", silu(hidden[..., :half]) * hidden[..., half:])
        if i + 1 == model.repa_block:
            projected = silu(linear(w, "repa_projector.0", x))
            projected = linear(w, "repa_projector.4", silu(linear(w, "repa_projector.2", projected)))

    shift, scale = np.split(linear(w, "final_layer.adaLN_modulation.1", condition)[:, None], 2, axis=-1)
    x = linear(w, "final_layer.linear", rms(w, "final_layer.norm_final", x) * (1 + scale) + shift)
    x = np.einsum("nhwpqc->nchpwq", x.reshape(batch, grid, grid, p, p, channels))
    v = torch.from_numpy(x.reshape(batch, channels, size, size))
    return v, torch.from_numpy(projected) if model.repa_block else None
