"""`lwd data check`: every kind of damage is listed, each on one line, and nothing is made up."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lwd.cli.main import main
from lwd.data.check import BINS, check
from lwd.data.check_picture import save_histograms, table
from lwd.data.encoded import FORMAT
from lwd.data.format import infer_layout
from lwd.data.writing import write_shard, write_stats
from lwd.errors import UserError
from lwd.groups import Group, Layout

LAYOUT = Layout([Group("tex", 3), Group("sem", 2)])


@pytest.fixture
def data(tmp_path):
    """A sound data set: train of two shards, heldout of one, a manifest."""
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for split, counts in (("train", (200, 150)), ("heldout", (60,))):
        folder, labels = tmp_path / split, []
        for number, n in enumerate(counts):
            twins = [{g.name: 2 + torch.randn(n, g.channels, 4, 4, generator=generator) for g in LAYOUT.groups}
                     for _ in range(2)]  # fmt: skip
            features = torch.randn(n, 5, 4, 4, generator=generator)
            labels.append(torch.randint(0, 3, (n,), generator=generator))
            write_shard(folder / f"{number}.safetensors", LAYOUT, twins[0], labels[-1], twins[1], features, features)
        write_stats(folder, LAYOUT)
        counted = torch.bincount(torch.cat(labels), minlength=3).tolist()
        sums = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.glob("*.safetensors"))}
        listed = [{"file": name, "images": n, "sha256": sums[name]} for name, n in zip(sums, counts, strict=True)]
        splits[split] = {"images": sum(counts), "per_class": counted, "shards": listed}
    texture = {"group": "tex", "encoder": "identity"}
    empty = {"recipe": {}, "fingerprint": "", "texture": texture, "judge": None}
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT, "splits": splits, **empty}))
    return tmp_path


def problems(path):
    lines = [problem for report in check(path, show=False) for problem in report.problems]
    assert all("\n" not in line for line in lines)
    return lines


def change(file, **tensors):
    """Replace tensors (None: remove) and leave the manifest as it is."""
    stored = load_file(file) | tensors
    save_file({key: t.contiguous() for key, t in stored.items() if t is not None}, file)


def test_a_sound_data_set_has_no_problems(data):
    reports = check(data, show=False)
    assert [(r.path.name, r.shards, r.images, r.problems) for r in reports] == [
        ("train", 2, 350, []),
        ("heldout", 1, 60, []),
    ]
    stored = torch.cat([load_file(data / "train" / f"{i}.safetensors")["latents"] for i in range(2)])
    seen = reports[0].channels["latents"]
    # float64 sums rounded to float32 on both sides.
    assert torch.allclose(seen.mean, stored.double().mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    assert torch.allclose(seen.std, stored.double().std((0, 2, 3), correction=0).float(), rtol=1e-6, atol=0)
    assert (seen.low, seen.high, seen.images) == (float(stored.min()), float(stored.max()), 350)
    assert seen.counts.view(3, BINS).sum(1).tolist() == [350 * 16] * 3


def test_histograms_are_numpys(data):
    report = check(data / "train", show=False)[0]
    stored = torch.cat([load_file(data / "train" / f"{i}.safetensors")["latents_sv"] for i in range(2)])
    first = stored[:128].double()  # the first block lays out the bins
    x = ((stored[:, 1] - first[:, 1].mean()) / first[:, 1].std(correction=0)).clamp(-5, 5).numpy()
    expected = np.histogram(x, bins=BINS, range=(-5, 5))[0]
    # float32 rounding may move a value across an edge: a few of 5600.
    assert np.abs(report.channels["latents_sv"].counts.view(2, BINS)[1].numpy() - expected).sum() <= 8


def test_a_bare_folder_of_shards(data):
    assert problems(data / "train") == []


def test_groups_are_inferred_from_all_shards():
    four = torch.zeros(1, 7, 2, 2)
    layout = infer_layout([{"latents": four, "labels": four}, {"latents_depth": four[:, :2], "latents_flip": four}])
    assert layout == Layout([Group("latents", 7, key="latents"), Group("latents_depth", 2, key="latents_depth")])
    assert infer_layout([{"labels": four}]) is None


def test_no_shards(tmp_path):
    with pytest.raises(UserError, match="shards here"):
        check(tmp_path, show=False)


def test_all_problems_are_listed_in_one_run(data):
    train, heldout = data / "train", data / "heldout" / "0.safetensors"
    one = load_file(train / "1.safetensors")
    bad = one["latents"].clone()
    bad[[7, 9], 1, 0, 0] = torch.nan
    change(train / "1.safetensors", latents=bad, latents_sv_flip=None, labels=one["labels"].clone().fill_(3))
    (train / "0.safetensors").write_bytes((train / "0.safetensors").read_bytes()[:-10])
    (train / "latents_sv_stats.pt").unlink()
    features = load_file(heldout)["feats_dino_flip"].clone()
    features[3, 2] = torch.inf
    change(heldout, feats_dino_flip=features, latents_sv=torch.ones(60, 2, 4, 4))
    found = problems(data)
    for message in (
        "train/0.safetensors: not a readable safetensors file",
        "train/1.safetensors: missing key 'latents_sv_flip'",
        "train/1.safetensors: label 3 of image 0 should be 0 to 2",
        "train: 150 images, the manifest says 350",
        "train: class 0 has 0 images",
        "train/1.safetensors: 'latents' of image 7, channel 1 is not finite (and 1 more image)",
        "train/latents_sv_stats.pt: missing",
        "train/0.safetensors: its checksum",
        "train/1.safetensors: its checksum",
        "heldout/0.safetensors: 'feats_dino_flip' of image 3, channel 2 is not finite",
        "heldout: 'latents_sv': channel 0 is constant (and 1 more channel)",
        "heldout/latents_sv_stats.pt: ",
        "heldout/0.safetensors: its checksum",
    ):
        assert sum(f"{data}/{message}" in line for line in found) == 1, (message, found)
    assert len(found) == 13, found


def test_nan_in_one_shard_does_not_poison_the_statistics(data):
    file = data / "train" / "1.safetensors"
    bad = load_file(file)["latents"].clone()
    bad[7, 1, 0, 0] = torch.nan
    change(file, latents=bad)
    seen = check(data / "train", show=False)[0].channels["latents"]
    stored = torch.cat([load_file(data / "train" / "0.safetensors")["latents"], bad[:7], bad[8:]]).double()
    assert seen.images == 349 and torch.allclose(seen.mean, stored.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)


def test_wrong_statistics(data):
    mean = torch.full((1, 3, 1, 1), 2.0)
    mean[0, 2] = 2.5
    torch.save({"mean": mean, "std": torch.ones(1, 3, 1, 1)}, data / "train" / "latents_stats.pt")
    assert [line.partition(" is 2.5, the latents have ")[0] for line in problems(data)] == [
        f"{data}/train/latents_stats.pt: mean of channel 2"
    ]


def test_heldout_data_under_the_training_split_s_statistics(data):
    """Heldout latents half a deviation away: their file holds train's statistics, as `lwd encode` writes them."""
    for key in ("latents", "latents_sv"):
        (data / "heldout" / f"{key}_stats.pt").write_bytes((data / "train" / f"{key}_stats.pt").read_bytes())
    file = data / "heldout" / "0.safetensors"
    change(file, latents=load_file(file)["latents"] + 0.5)
    assert problems(data) == [f"{file}: its checksum is not the manifest's: it was changed after encoding"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"latents": None}, "missing key 'latents'"),
        ({"latents": torch.zeros(150, 4, 4, 4)}, "needs (N, 3, ...)"),
        ({"labels": torch.zeros(151, dtype=torch.int64)}, "unequal length"),
        ({"labels": torch.zeros(150)}, "must be integers"),
        ({"labels": -torch.ones(150, dtype=torch.int64)}, "label -1 of image 0 should be at least 0"),
        ({"feats_dino": None, "feats_dino_flip": None}, "missing key 'feats_dino', which other shards have"),
        ({"latents_flip": torch.zeros(150, 3, 4, 4).half()}, "'latents' differs in dtype"),
        ({"latents": torch.zeros(150, 3, 2, 2)}, "different grids"),
    ],
)
def test_damage_to_one_shard(data, tensors, message):
    change(data / "train" / "1.safetensors", **tensors)
    found = problems(data / "train")
    assert sum(message in line for line in found) == 1, found


def test_a_manifest_of_a_split_that_is_gone_or_of_something_else(data):
    (data / "heldout" / "0.safetensors").unlink()
    assert any("the manifest has split 'heldout'" in line for line in problems(data))
    (data / "manifest.json").write_text("{}")
    assert any("not a manifest" in line for line in problems(data))


def test_the_command(data, monkeypatch, capsys):
    def run():
        monkeypatch.setattr("sys.argv", ["lwd", "data", "check", str(data)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code or 0, *capsys.readouterr()

    code, out, err = run()
    assert code == 0 and not err and "train: 350 images in 2 shards, no problems" in out
    with Image.open(data / "histograms.png") as picture:
        assert picture.width > 1000 and np.asarray(picture.convert("L"))[0, 0] == 255
    (data / "train" / "latents_stats.pt").unlink()
    (data / "heldout" / "latents_stats.pt").unlink()
    code, out, err = run()
    assert code == 2 and err.count("lwd: ") == err.count("\n") == 2 and "heldout: 60 images" in out


def test_table_and_picture_of_splits_with_different_groups(data, tmp_path):
    change(data / "heldout" / "0.safetensors", latents=None, latents_flip=None)
    reports = check(data, show=False)
    save_histograms(reports, tmp_path / "h.png")
    assert "latents_sv" in table(reports) and (tmp_path / "h.png").stat().st_size > 10_000


def test_picture_of_splits_with_different_channels_and_any_name(data, tmp_path):
    """The finding is the reader's to see, not the end of the command."""
    latents = load_file(data / "heldout" / "0.safetensors")["latents"]
    change(data / "heldout" / "0.safetensors", latents=latents[:, :2].contiguous(), latents_flip=None)
    (data / "train").rename(data / "$a^{$")
    reports = check(data, show=False)
    assert any(report.problems for report in reports)
    save_histograms(reports, tmp_path / "h.png")
    assert (tmp_path / "h.png").stat().st_size > 10_000
