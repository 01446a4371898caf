"""`lwd plan` against the numbers that docs/imagenet.md states, and on the digits."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.planning import Estimate
from lwd.stages.experiment import Experiment
from lwd.stages.plan import machine_of
from lwd.stages.plan.disk import disk_of
from lwd.stages.plan.facts import data_of
from lwd.stages.plan.run import _hours
from lwd.stages.plan.units import binary, duration, money, scaled, size
from lwd.stages.plan.work import _encode, _sample, _search, _train
from lwd.stages.probe.run import trained as probed
from lwd.stages.train.estimate import trained

CONFIGS = Path(__file__).parents[2] / "configs"
IMAGENET = 1_281_167
DIGITS = Layout([Group("tex", 4), Group("sem", 2, weight=2.0)])


@pytest.fixture(scope="module")
def xl():
    return load(Experiment, CONFIGS / "imagenet256" / "xl.yaml", ["encode.dataset=/nowhere/imagenet"])


def test_the_work_of_xl_is_that_of_the_docs(xl):
    data = data_of(xl, IMAGENET)
    assert data.shape == (16, 16) and data.features == (768, 256)
    (main,) = _train(xl, data)
    probe, sweep = _search(xl, data)
    assert main.operations == pytest.approx(7.4e19, rel=0.005) and "79.9 epochs" in main.what
    assert probe.operations == pytest.approx(1.8e18, rel=0.02) and sweep.operations == 7 * probe.operations
    assert probe.counted and not sweep.counted  # the recipe takes the probe's schedule
    row = _hours(main, machine_of(xl, "H200", tflops=1000, share=0.4, price=3))
    assert row.hours == pytest.approx(52, abs=0.6) and row.cost == pytest.approx(3 * row.hours)
    eight = _hours(main, machine_of(xl, "H200", gpus=8, tflops=1000, share=0.4, price=3))
    assert eight.hours == pytest.approx(row.hours / 8) and eight.cost == pytest.approx(row.cost)
    again = load(Experiment, CONFIGS / "imagenet256" / "xl.yaml", ["compute.activation_checkpointing=true"])
    (main,) = _train(again, data)
    assert main.again == pytest.approx(main.operations / 3)


def test_guidance_and_solvers_count(xl):
    data = data_of(xl, IMAGENET)

    def operations(*overrides):
        more = ["encode.texture.encoder=identity", *overrides]  # without a decoder
        return _sample(load(Experiment, CONFIGS / "imagenet256" / "xl.yaml", more), data).operations

    heun = ("sample.solver=heun", "sample.steps=20", "sample.guidance.kind=none")
    assert operations(*heun) == 50_000 * 40 * 237_269_827_584  # README's count, forward
    assert operations(*heun[:2], "sample.guidance.kind=classifier_free") == 2 * operations(*heun)
    assert operations(*heun[:2], "sample.guidance.kind=both") == 3 * operations(*heun)


def test_the_disk_of_xl_is_that_of_the_docs(xl):
    data = data_of(xl, IMAGENET)
    counts = [Estimate(each).count for each in (trained(xl, data.shape, 768), probed(xl, data.shape))]
    shards, checkpoints, _, samples = disk_of(xl, data, *counts)
    assert shards.bytes == IMAGENET * 884_744
    assert checkpoints.bytes == pytest.approx(6 * 10.9e9, rel=0.01)  # 70K, 120K, 400K, two periodic ones, one in work
    assert samples.bytes == 2 * 50_000 * 3 * 256**2
    assert disk_of(xl, data_of(xl), *counts)[0].bytes is None
    averaged = xl.model_copy(update={"train": xl.train.model_copy(update={"posthoc_ema": (0.05, 0.1)})})
    more = disk_of(averaged, data, *counts)[1].bytes - checkpoints.bytes
    assert more == (6 * 2 + 40 * 2) * 4 * counts[0].parameters  # in each checkpoint, and docs/ema.md's 40 snapshots


def test_the_digits_on_a_screen_and_as_json(data):
    words = [
        "plan",
        str(CONFIGS / "digits.yaml"),
        f"data.path={data}",
        "--card",
        "4090",
        "--tflops",
        "0.1",
        "--price",
        "1",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "1,352 images" in done.output and "40 % of 0.1 TFLOP/s" in done.output
    done = CliRunner().invoke(app, [*words, "--json"])
    made = json.loads(done.output)
    assert made["data"]["heldout"] == 445 and made["memory"]["train"]["micro_batch"] == 64
    network = load(Experiment, CONFIGS / "digits.yaml").model.build(DIGITS, (4, 4), 64)
    assert made["count"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert made["warnings"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x=1"], "name the config first"),
        (["digits.yaml", "--card", "H300"], "--card H300"),
        (["digits.yaml", "--gpus", "0"], "--gpus 0"),
        (["digits.yaml", "--mfu", "1.5"], "--mfu 1.5"),
        (["digits.yaml", "--gpus", "7"], "does not divide over 7 cards"),
        (["digits.yaml", "--memory", "-1"], "--memory -1"),
        (["digits.yaml", "--tflops", "inf"], "--tflops inf"),
        (["digits.yaml", "--price", "nan"], "--price nan"),
        (["digits.yaml", "--images", "0"], "--images 0"),
    ],
)
def test_bad_words_are_one_line(words, says, capsys, monkeypatch):
    monkeypatch.chdir(CONFIGS)
    done = CliRunner().invoke(app, ["plan", *words])
    assert done.exit_code == 2
    assert says in done.output + capsys.readouterr().err and "Traceback" not in done.output


def test_other_groups_than_encode_makes_need_shards(tmp_path):
    config = load(
        Experiment, CONFIGS / "digits.yaml", [f"output={tmp_path}", "groups=[{name: a, channels: 3}]", "leader=a"]
    )
    with pytest.raises(UserError, match="no shards here"):
        data_of(config)


def test_further_groups_and_models_by_their_folders(tmp_path):
    more = [
        f"output={tmp_path}",
        "groups=[{name: tex, channels: 4}, {name: sem, channels: 2}, {name: edge, channels: 1}]",
        "encode.further=[{group: edge, encoder: edges}]",
    ]
    config = load(Experiment, CONFIGS / "digits.yaml", more)
    data = data_of(config)
    assert data.shape == (4, 4) and data.images == 1352 and _encode(config, data).operations == 0
    for key in ("texture", "semantic"):
        part = getattr(config.encode, key)
        other = part.model_copy(update={"encoder": "diffusers" if key == "texture" else "transformers"})
        encode = config.encode.model_copy(update={key: other})
        assert _encode(config.model_copy(update={"encode": encode}), data).operations is None


class Convolutions:
    """Counts the multiply-adds of a model's convolutions as they run: of each output number, twice inputs x kernel."""

    def __init__(self, model):
        self.total = 0
        for module in model.modules():
            assert isinstance(module, torch.nn.Conv2d) or not list(module.parameters(recurse=False))
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(self.add)

    def add(self, module, inputs, output):
        self.total += 2 * output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]


def test_a_diffusers_vae_is_counted_by_its_config(tmp_path, monkeypatch):
    """AutoencoderTiny is convolutions alone, which are counted here on numbers; of its folder config.json is all."""
    diffusers = pytest.importorskip("diffusers")
    sizes = {"num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "in_channels": 1, "out_channels": 1}
    widths = {f"{side}_block_out_channels": [8, 8] for side in ("encoder", "decoder")}
    tiny = diffusers.AutoencoderTiny(**sizes, **widths)
    tiny.save_config(tmp_path)
    encoding = Convolutions(tiny.encoder)
    tiny.encoder(torch.zeros(1, 1, 8, 8))
    decoding = Convolutions(tiny.decoder)
    tiny.decoder(torch.zeros(1, 4, 4, 4))
    assert decoding.total > encoding.total > 10**5

    def work(stage, *more):
        config = load(Experiment, CONFIGS / "digits.yaml", [f"output={tmp_path / 'run'}", "sample.num=10", *more])
        return stage(config, data_of(config))

    texture = f"encode.texture={{group: tex, encoder: diffusers, path: {tmp_path}}}"
    assert work(_encode, texture).operations == (1352 + 445) * encoding.total
    plain = work(_sample).operations
    assert work(_sample, texture).operations - plain == 10 * decoding.total
    assert work(_sample, f"sample.decoder={{path: {tmp_path}}}").operations - plain == 10 * decoding.total
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    unknown = work(_sample, "sample.decoder={path: nobody/nothing-there}")
    assert unknown.what.endswith(", decoding not counted") and unknown.operations == plain
    tiny.register_to_config(in_channels=3)  # than which digits have fewer
    tiny.save_config(tmp_path)
    assert work(_encode, texture).operations is None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"encoder_block_out_channels": [], "num_encoder_blocks": []})
    )
    with pytest.raises(UserError, match="cannot be read as AutoencoderTiny"):
        work(_encode, texture)


def test_a_vae_that_is_gone_does_not_keep_encoded_data_from_being_planned(experiment):
    texture = experiment.encode.texture.model_copy(update={"encoder": "diffusers", "path": "nowhere"})
    config = experiment.model_copy(update={"encode": experiment.encode.model_copy(update={"texture": texture})})
    data = data_of(config)
    assert data.images == 1352 and data.pixels is None
    assert _encode(config, data).operations is None and "decoding not counted" in _sample(config, data).what


def test_units():
    assert [scaled(237_269_827_584), scaled(999.6), scaled(0)] == ["237 G", "1 k", "0 "]
    assert [size(10.9e9), binary(2**30), binary(2**19)] == ["10.9 GB", "1.0 GiB", "0.5 MiB"]
    assert [duration(7.2), duration(200), duration(7200), duration(52 * 3600)] == ["7.2 s", "3.3 min", "2 h", "52 h"]
    assert [money(3.256), money(1234.5)] == ["3.26", "1,234"]
