"""LightningDiT against the released sizes and parameter names, and against a second implementation written here."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.models import SIZES, LightningDiT, create, load_model, save_model
from released_dit import our_name, position_table, reference, released_s1, rotary_angles

SFD = Layout([Group("tex", 32), Group("sem", 16)])

# Name: (all parameters, without the fixed sin-cos table, of these the REPA projector), of SFD's released code with
# 48 input channels, a 16x16 grid, 1000 classes and the null class, and REPA features of 768 channels.
RELEASED = {
    "S": (39_483_824, 39_385_520, 6_558_464),
    "B": (137_632_304, 137_435_696, 7_344_896),
    "L": (465_533_712, 465_271_568, 7_869_184),
    "XL": (682_765_424, 682_470_512, 8_131_328),
    "1p0B": (1_037_191_472, 1_036_798_256, 8_917_760),
    "1p6B": (1_639_664_480, 1_639_205_728, 9_442_048),
}


@pytest.mark.parametrize("size", RELEASED)
def test_parameter_counts_are_those_of_the_released_code(size):
    with torch.device("meta"):
        model = create(f"LightningDiT-{size}/1", SFD, 16, 1000, feature_dim=768)
        plain = create(f"LightningDiT-{size}/1", SFD, 16, 1000)
    total, trainable, projector = RELEASED[size]
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    assert sum(p.numel() for p in plain.parameters()) == total - projector


def test_every_released_size_is_offered():
    assert set(RELEASED) | {"Mini", "Ti"} == set(SIZES)


def test_tensors_are_those_of_a_released_s1_checkpoint():
    expected = {our_name(name): shape for name, shape in released_s1().items()}
    with torch.device("meta"):
        model = create("LightningDiT-S/1", SFD, 16, 1000, feature_dim=768)
    buffers = {name: tuple(b.shape) for name, b in model.named_buffers() if name.startswith("rotary")}
    ours = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert not set(ours) & set(buffers), "our rotary tables are not saved"
    assert ours | buffers == expected


def small(seed=0, groups=(("tex", 3), ("sem", 2)), random=True, **options):
    """A float64 network of odd sizes; with ``random``, all that starts at 0 or 1 is random too."""
    options = {"depth": 3, "width": 48, "heads": 3, "projector_width": 7} | options
    torch.manual_seed(seed)
    model = LightningDiT(Layout([Group(*g) for g in groups]), 6, 4, **options).double().eval()
    if random:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.requires_grad and (p.ndim == 1 or "adaLN" in name or name.startswith("final_layer")):
                    p.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model


def inputs(model, batch=3, seed=1):
    """z, times (exact in float32) and labels, the null class among them."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, model.layout.channels, 6, 6, generator=generator, dtype=torch.float64)
    times = torch.randint(0, 257, (batch, len(model.layout.groups)), generator=generator).double() / 256
    return z, times, torch.arange(batch) + model.null_label + 1 - batch


def exact_tables(model, heads):
    """Put float64 tables where the network keeps tables rounded to float32."""
    width, grid = model.pos_embed.shape[-1], model.input_size // model.patch_size
    angles = torch.from_numpy(rotary_angles(width // heads, grid)).repeat_interleave(2, dim=1)
    model.pos_embed.data.copy_(torch.from_numpy(position_table(width, grid)))
    model.rotary_cos.copy_(angles.cos())
    model.rotary_sin.copy_(angles.sin() * torch.tensor([-1.0, 1.0]).repeat(width // heads // 2))
    for embedder in model.t_embedder.by_group.values():
        embedder.frequencies.copy_(torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128))
    return model


@pytest.mark.parametrize(
    ("options", "heads"),
    [
        pytest.param({}, 3, id="patch 1"),
        pytest.param({"patch_size": 2, "repa_block": 3}, 3, id="patch 2"),
        pytest.param({"patch_size": 3, "heads": 12, "repa_block": 1}, 12, id="heads of width 4"),
        pytest.param({"time_order": ["sem", "tex"]}, 3, id="times in SFD's order"),
        pytest.param(
            {"groups": (("a", 1), ("b", 3), ("c", 2)), "width": 32, "heads": 2, "time_order": ["c", "a", "b"]},
            2,
            id="three groups",
        ),
        pytest.param({"groups": (("z", 2),), "width": 20, "heads": 1}, 1, id="one group"),
    ],
)
def test_forward_equals_the_second_implementation(options, heads):
    model = exact_tables(small(feature_dim=5, **options), heads)
    z, times, labels = inputs(model)
    with torch.no_grad():
        v, projected = model(z, times, labels, project=True)
    order = options.get("time_order") or model.layout.names
    expected_v, expected_projection = reference(model, z, times, labels, heads=heads, order=order)
    # float64 rounds at 1e-16; a few hundred operations deep, with values of order 10, 1e-10 leaves a wide margin.
    torch.testing.assert_close(v, expected_v, rtol=0, atol=1e-10)
    torch.testing.assert_close(projected, expected_projection, rtol=0, atol=1e-10)
    assert v.std() > 0.1, "a comparison of zeros would prove nothing"


def test_tables_kept_in_float32_are_the_exact_ones():
    model = small(random=False, width=64, heads=2)
    position, cos, sin = model.pos_embed.clone(), model.rotary_cos.clone(), model.rotary_sin.clone()
    frequencies = [e.frequencies.clone() for e in model.t_embedder.by_group.values()]
    exact_tables(model, heads=2)
    # The position table is computed in float64 and rounded once: half an ulp of 1, 2^-25, and some.
    torch.testing.assert_close(position, model.pos_embed, rtol=0, atol=2**-24)
    # Rotary angles up to 5 come from float32 frequencies, a few roundings of 2^-24 relative each.
    torch.testing.assert_close(cos, model.rotary_cos, rtol=0, atol=2e-6)
    torch.testing.assert_close(sin, model.rotary_sin, rtol=0, atol=2e-6)
    # exp of a float32 exponent of up to 9.2 keeps a relative error of 9.2 * 2^-24 = 5.5e-7, and some.
    for mine, embedder in zip(frequencies, model.t_embedder.by_group.values(), strict=True):
        torch.testing.assert_close(mine, embedder.frequencies, rtol=2e-6, atol=0)


def test_position_table_tells_every_token_apart_and_is_fixed():
    model = small()
    assert not model.pos_embed.requires_grad
    assert torch.pdist(model.pos_embed[0]).min() > 0.1


def test_a_fresh_network_outputs_exactly_zero():
    model = create("LightningDiT-Mini/1", SFD, 4, 10, feature_dim=6)
    z, times, labels = torch.randn(3, 48, 4, 4), torch.rand(3, 2), torch.tensor([0, 9, 10])
    v, projected = model(z, times, labels, project=True)
    assert v.shape == z.shape and torch.equal(v, torch.zeros_like(v))
    # All gates are zero, so the blocks pass their input on, bit by bit.
    tokens = model.x_embedder(z).flatten(2).transpose(1, 2) + model.pos_embed
    assert torch.equal(projected, model.repa_projector(tokens)) and projected.std() > 0


def test_initialisation_statistics():
    torch.manual_seed(0)
    model = LightningDiT(SFD, 4, 100, depth=2, width=96, heads=4, feature_dim=24, projector_width=80)
    checked = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.RMSNorm):
            assert module.eps == 1e-6 and torch.equal(module.weight, torch.ones_like(module.weight))
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Embedding):
            continue
        weight = module.weight.detach().flatten(1)
        checked.add(name)
        if getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all(), name
        if "adaLN" in name or name == "final_layer.linear":
            assert (weight == 0).all(), name
            continue
        # The sample deviation of n numbers has a relative standard error of 0.45 / sqrt(n) (uniform) or
        # 0.71 / sqrt(n) (normal), the mean one of std / sqrt(n): five of these are exceeded once in 10^6.
        rows, columns = weight.shape
        xavier = not name.startswith(("t_embedder", "y_embedder"))
        std = math.sqrt(2 / (rows + columns)) if xavier else 0.02
        assert abs(float(weight.std()) / std - 1) < 5 * (0.45 if xavier else 0.71) / math.sqrt(weight.numel()), name
        assert abs(float(weight.mean())) < 5 * std / math.sqrt(weight.numel()), name
        if xavier:
            assert 0.95 < float(weight.abs().max()) / (math.sqrt(3) * std) <= 1 + 1e-6, name
        else:
            assert float(weight.abs().max()) > 3 * std, name
    assert len(checked) == 2 * 5 + 1 + 2 * 2 + 1 + 2 + 3  # blocks, patches, two groups' times, labels, output, REPA


def test_patches_go_in_and_come_out_in_the_same_order():
    """With patch 2 and identity maps at both ends, every pixel must come back to its own place."""
    layout = Layout([Group("tex", 2), Group("sem", 1)])
    model = LightningDiT(layout, 4, 3, depth=1, width=16, heads=1, patch_size=2).double()
    with torch.no_grad():
        model.pos_embed.zero_()
        model.x_embedder.weight.zero_()
        model.final_layer.linear.weight.zero_()
        for row in range(2):
            for column in range(2):
                for channel in range(3):
                    place = (row * 2 + column) * 3 + channel  # patch row by row, channels last
                    model.x_embedder.weight[place, channel, row, column] = 1
                    model.final_layer.linear.weight[place, place] = 1
        z = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        v = model(z, torch.rand(2, 2).double(), torch.zeros(2, dtype=torch.int64))
    # The final RMSNorm divides each token by its own root mean square, over 16 channels of which 12 are used.
    energy = torch.nn.functional.avg_pool2d(z.square().sum(1, keepdim=True), 2) * 4 / 16
    expected = z / torch.nn.functional.interpolate((energy + 1e-6).sqrt(), scale_factor=2)
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-12)  # float64 rounding of numbers of order 1


@pytest.mark.parametrize("order", [None, ["sem", "tex"], ["tex", "sem"]])
def test_every_group_s_time_reaches_the_output_through_its_own_embedder(order):
    model = small(time_order=order)
    z, times, labels = inputs(model)
    times.requires_grad_()

    def gradient():
        (grad,) = torch.autograd.grad(model(z, times, labels).square().sum(), times)
        return grad.abs().amin(0)

    assert (gradient() > 1e-3).all()
    for column, name in enumerate(model.layout.names):
        last = model.t_embedder.by_group[name].mlp[2]
        saved = last.weight.detach().clone()
        torch.nn.init.zeros_(last.weight)
        deaf = gradient()
        assert deaf[column] == 0 and deaf[1 - column] > 1e-3
        last.weight.data.copy_(saved)


def test_a_width_that_does_not_divide_gives_the_first_times_more():
    model = small(groups=(("a", 1), ("b", 1), ("c", 1)), width=32, heads=2, time_order=["c", "a", "b"])
    widths = {name: embedder.mlp[2].out_features for name, embedder in model.t_embedder.by_group.items()}
    assert widths == {"c": 11, "a": 11, "b": 10}


def test_labels_choose_rows_of_the_embedding_and_null_is_the_last():
    model = small()
    z, times, _ = inputs(model, batch=1)
    assert model.null_label == model.num_classes == 4 and model.y_embedder.num_embeddings == 5
    outputs = [model(z, times, torch.tensor([label])) for label in range(5)]
    assert torch.pdist(torch.cat(outputs).flatten(1)).min() > 1e-2
    with torch.no_grad():
        model.y_embedder.weight[4] += 1
    unmoved = [torch.equal(model(z, times, torch.tensor([label])), outputs[label]) for label in range(5)]
    assert unmoved == [True, True, True, True, False]
    with pytest.raises(IndexError):
        model(z, times, torch.tensor([5]))


def test_rows_of_a_batch_do_not_meet():
    model = small()
    z, times, labels = inputs(model)
    together = model(z, times, labels)
    alone = torch.cat([model(z[i : i + 1], times[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)  # the same sums, perhaps in another order


def test_projection_only_when_asked_for():
    model = small(feature_dim=5)
    z, times, labels = inputs(model)
    v, projected = model(z, times, labels, project=True)
    assert projected.shape == (3, 36, 5)
    assert torch.equal(model(z, times, labels), v)
    torch.nn.init.constant_(model.repa_projector[0].weight, math.nan)
    assert torch.equal(model(z, times, labels), v), "the projector ran although nobody asked"


def test_projection_without_projector_is_an_error():
    model = small()
    assert model.repa_projector is None and not any("repa" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="feature_dim"):
        model(*inputs(model), project=True)


@pytest.mark.filterwarnings("error")
def test_mixed_precision_stays_close():
    model = small().float()
    z, times, labels = inputs(model)
    exact = model(z.float(), times.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(z.float(), times.float(), labels)
    # bfloat16 rounds at 2^-9; some twenty roundings in a row, which add up at random, stay well within 2 % of the norm.
    assert 1e-5 < (rough - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"patch_size": 4},
        {"patch_size": 0},
        {"width": 50},
        {"width": 36, "heads": 6},
        {"width": 48, "heads": 5},
        {"heads": 0},
        {"width": 0},
        {"feature_dim": 5, "repa_block": 0},
        {"feature_dim": 5, "repa_block": 4},
        {"time_order": ["tex"]},
        {"time_order": ["tex", "tex"]},
        {"time_order": ["tex", "sem", "depth"]},
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_raise_value_error(options):
    with pytest.raises(ValueError):
        small(**options)


def test_without_projector_any_repa_block_will_do():
    assert len(small(depth=1).blocks) == 1


# Model folders


@pytest.fixture
def saved(tmp_path):
    """A network with every option away from its default, and its folder."""
    layout = Layout([Group("sem", 2, 2.0, "latents_x"), Group("tex", 3, 0.5)])
    torch.manual_seed(3)
    model = LightningDiT(
        layout, 6, 4, depth=2, width=24, heads=2, patch_size=2, mlp_ratio=3.0, feature_dim=5, repa_block=1,
        projector_width=9, time_order=["tex", "sem"],
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()  # the position table too: what is in the file counts
    save_model(model, tmp_path / "model")
    return model.eval(), tmp_path / "model"


@pytest.mark.parametrize("read", [load_model, LightningDiT.from_pretrained])
def test_a_saved_model_comes_back_bit_for_bit(saved, read):
    model, folder = saved
    again = read(folder).eval()
    assert again.layout == model.layout and again.repa_block == 1 and again.null_label == 4
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    args = (torch.randn(2, 5, 6, 6), torch.rand(2, 2), torch.tensor([1, 4]))
    for mine, other in zip(model(*args, project=True), again(*args, project=True), strict=True):
        assert torch.equal(mine, other)


def test_the_folder_is_plain_json_and_safetensors(saved):
    model, folder = saved
    config = json.loads((folder / "config.json").read_text())
    assert Layout(config["layout"]) == model.layout
    assert {k: config[k] for k in ("patch_size", "mlp_ratio", "time_order")} == {
        "patch_size": 2,
        "mlp_ratio": 3.0,
        "time_order": ["tex", "sem"],
    }
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())


def edit(**changes):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return apply


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def keep(length):
    return lambda folder: write("model.safetensors", (folder / "model.safetensors").read_bytes()[:length])(folder)


def tensors(change):
    def apply(folder):
        content = load_file(folder / "model.safetensors")
        change(content)
        save_file(content, folder / "model.safetensors")

    return apply


BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no folder": (shutil.rmtree, "config.json: no such file"),
    "config cut short": (write("config.json", b'{"depth": 2,'), "config.json: not valid JSON"),
    "config is a list": (write("config.json", b"[1, 2]"), "config.json: not a LightningDiT's config"),
    "foreign config": (write("config.json", b'{"_class_name": "UNet"}'), "config.json: not a LightningDiT's config"),
    "unknown setting": (edit(dropout=0.1), "dropout"),
    "a layout that is none": (edit(layout=[{"name": "tex"}]), "config.json"),
    "sizes that do not fit": (edit(width=25), "width 25"),
    "no heads": (edit(heads=0), "heads"),
    "weights cut in the header": (keep(100), "model.safetensors: not a readable"),
    "weights cut in the data": (keep(-8), "model.safetensors: not a readable"),
    "empty weights": (keep(0), "model.safetensors: not a readable"),
    "deeper model": (edit(depth=3), "'blocks.2."),
    "wider model": (edit(width=32), "shape"),
    "no projector": (edit(feature_dim=None), "unknown key 'repa_projector."),
    "missing tensor": (tensors(lambda t: t.pop("blocks.1.attn.qkv.bias")), "'blocks.1.attn.qkv.bias' is missing"),
    "foreign tensor": (tensors(lambda t: t.update(extra=torch.zeros(1))), "unknown key 'extra'"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=list(BROKEN))
def test_damaged_and_foreign_folders_give_one_line(saved, damage, message):
    _, folder = saved
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


# Names


def test_create_reads_the_name():
    model = create("LightningDiT-Mini/2", SFD, 8, 10, feature_dim=3)
    assert (len(model.blocks), model.y_embedder.embedding_dim, model.patch_size) == (2, 32, 2)
    assert model.layout == SFD and model.num_classes == 10 and model.input_size == 8
    assert model.repa_projector[-1].out_features == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LightningDiT-XLL/1", "did you mean 'LightningDiT-XL/1'?"),
        ("LightningDit-1p0b/1", "did you mean 'LightningDiT-1p0B/1'?"),
        ("LightningDiT-Mini", "did you mean 'LightningDiT-Mini/1'?"),
        ("LightningDiT-B/0", "did you mean 'LightningDiT-B/1'?"),
        ("resnet", "sizes: Mini, Ti, S, B, L, XL, 1p0B, 1p6B"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, hint):
    with pytest.raises(UserError) as caught:
        create(name, SFD, 16, 10)
    assert repr(name) in str(caught.value) and hint in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_does_not_fit_the_grid_is_the_users_to_mend():
    with pytest.raises(UserError, match="Mini/3: patch size 3 does not divide the latents' grid of 16"):
        create("LightningDiT-Mini/3", SFD, 16, 10)
