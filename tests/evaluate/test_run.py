"""The command: what it reads, what it writes, what it keeps, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lwd.cli import main
from lwd.data.npz import write_npz
from lwd.evaluate import FidInception, frechet_distance, gaussian_stats, inception_score, precision_recall, run
from stub_extractor import StubExtractor

random = np.random.default_rng(0)
SAMPLES = random.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
REFERENCE = random.integers(0, 230, (50, 4, 4, 3), dtype=np.uint8)


class Evaluate:
    """Runs `lwd evaluate` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._patch.setattr("sys.argv", ["lwd", "evaluate", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = self._capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    def refuses(self, *arguments: object) -> str:
        code, _, err = self(*arguments, "compute.progress=false")
        assert code == 2 and err.startswith("lwd: ") and err.count("\n") == 1, err
        return err

    def record(self, folder: Path, samples: object, reference: object, *arguments: object) -> dict[str, Any]:
        code, _, err = self(samples, "--reference", reference, "--out", folder / "out.json", *arguments)
        assert code == 0, err
        record: dict[str, Any] = json.loads((folder / "out.json").read_text())
        return record


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    monkeypatch.setitem(run.__globals__, "InceptionExtractor", StubExtractor)
    monkeypatch.setattr(StubExtractor, "seen", 0)
    return Evaluate(monkeypatch, capsys)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.savez(tmp_path / "samples.npz", SAMPLES)
    np.savez(tmp_path / "reference.npz", REFERENCE)
    return tmp_path


def features(array: np.ndarray[Any, Any]) -> dict[str, torch.Tensor]:
    class Nothing:
        allow_other_weights = False

    return StubExtractor(Nothing, None)(torch.from_numpy(array).permute(0, 3, 1, 2))


def pictures(folder: Path, array: np.ndarray[Any, Any], suffix: str = "png") -> Path:
    for number, image in enumerate(array):
        path = folder / f"class{number % 3}" / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, lossless=True)
    return folder


def test_the_papers_five(evaluate: Evaluate, files: Path) -> None:
    """The metrics of the features, each image once through the network, in the papers' order on the screen."""
    code, out, err = evaluate(files / "samples.npz", "-r", files / "reference.npz", "evaluate.batch=7")
    assert code == 0, err
    assert StubExtractor.seen == 110
    titles = out.splitlines()[0].split()
    assert titles == ["FID", "sFID", "IS", "precision", "recall"]
    record = json.loads((files / "samples.evaluation.json").read_text())
    ours, theirs = features(SAMPLES), features(REFERENCE)
    assert list(record["metrics"]) == ["fid", "sfid", "inception_score", "precision", "recall"]
    wanted = [
        frechet_distance(*gaussian_stats(ours["pool"]), *gaussian_stats(theirs["pool"])),
        frechet_distance(*gaussian_stats(ours["spatial"]), *gaussian_stats(theirs["spatial"])),
        inception_score(ours["logits"]),
        *precision_recall(theirs["pool"], ours["pool"]),
    ]
    # A batch of 7 rounds float32 products otherwise than one of 60.
    assert list(record["metrics"].values()) == pytest.approx(wanted, rel=1e-5)
    for side, count in (("samples", 60), ("reference", 50)):
        assert record[side]["count"] == count and len(record[side]["sha256"]) == 64
    assert record["extractors"]["inception"]["weights_sha256"] == "stub"
    assert record["settings"]["batch"] == 7 and "torch" in record["versions"] and record["seconds"]
    assert record["intervals"]["fid"]["low"] < record["metrics"]["fid"] < record["intervals"]["fid"]["high"]
    assert record["extrapolations"]["fid"]["counts"] == [60, 30, 15]


def test_pictures_and_arrays_are_the_same_images(evaluate: Evaluate, files: Path) -> None:
    """Order alone differs: FID and the neighbours do not notice."""
    one = evaluate.record(files, files / "samples.npz", files / "reference.npz")["metrics"]
    for suffix in ("png", "webp"):
        folder = pictures(files / suffix, SAMPLES, suffix)
        other = evaluate.record(files, folder, files / "reference.npz")["metrics"]
        assert [other[key] for key in one] == pytest.approx(list(one.values()), rel=1e-5)


def test_a_folder_of_samples(evaluate: Evaluate, files: Path) -> None:
    """As `lwd sample` leaves it, with a foreign file in it; the record lies in it and says what sampling cost."""
    folder = files / "samples"
    write_npz(folder / "images.npz", [SAMPLES], np.zeros(60, dtype=np.int64), (4, 4))
    facts = {"labels": torch.zeros(60).long(), "seeds": torch.arange(60), "nfe": torch.full((60,), 12)}
    save_file(facts, folder / "samples.safetensors")
    info = {"format": "lwd.samples/1", "formats": ["npz"], "schedule": "abc", "checkpoint": "c"}
    (folder / "samples.json").write_text(json.dumps(info))
    code, out, err = evaluate(folder, "--reference", files / "reference.npz")
    assert code == 0 and "12.0 evaluations per sample" in out, err
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["samples"]["nfe"] == 12 and record["samples"]["schedule"] == "abc"
    (folder / "images.npz").unlink()
    assert "holds no images (sample.formats was ['npz'])" in evaluate.refuses(folder, "-r", files / "reference.npz")


def test_adms_reference_batch(evaluate: Evaluate, files: Path) -> None:
    """Its stored statistics make the distances, its images the neighbours; without, those are left out, in words."""
    stats = {}
    for kind, suffix in (("pool", ""), ("spatial", "_s")):
        mean, covariance = gaussian_stats(features(REFERENCE)[kind] + 1)  # not those of the images
        stats |= {f"mu{suffix}": mean.numpy(), f"sigma{suffix}": covariance.numpy()}
    np.savez(files / "adm.npz", arr_0=REFERENCE, **stats)
    np.savez(files / "bare.npz", **stats)
    plain = evaluate.record(files, files / "samples.npz", files / "reference.npz")["metrics"]
    adm = evaluate.record(files, files / "samples.npz", files / "adm.npz")["metrics"]
    ours = features(SAMPLES)
    for metric, kind in (("fid", "pool"), ("sfid", "spatial")):
        suffix = "" if kind == "pool" else "_s"
        stored = [torch.from_numpy(stats[f"{name}{suffix}"]) for name in ("mu", "sigma")]
        assert adm[metric] == pytest.approx(frechet_distance(*gaussian_stats(ours[kind]), *stored), rel=1e-5)
        assert adm[metric] > plain[metric] + 1
    assert (adm["precision"], adm["recall"]) == (plain["precision"], plain["recall"])
    code, out, err = evaluate(files / "samples.npz", "-r", files / "bare.npz")
    assert code == 0 and out.splitlines()[0].split() == ["FID", "sFID", "IS"]
    assert "precision: left out, " in err and "bare.npz holds no pool features" in err


def test_saved_statistics_and_features_are_references(evaluate: Evaluate, files: Path) -> None:
    statistics, whole = files / "stats.safetensors", files / "features.safetensors"
    arguments = (files / "reference.npz", "--save-statistics", statistics, "--save-features", whole)
    code, _, err = evaluate(*arguments)
    assert code == 0, err
    plain = evaluate.record(files, files / "samples.npz", files / "reference.npz")
    of_features = evaluate.record(files, files / "samples.npz", whole)
    assert of_features["metrics"] == plain["metrics"]
    assert of_features["reference"] == plain["reference"]  # the images' own hash
    of_statistics = evaluate.record(files, files / "samples.npz", statistics)["metrics"]
    assert list(of_statistics) == ["fid", "sfid", "inception_score"]
    assert of_statistics["fid"] == pytest.approx(plain["metrics"]["fid"], rel=1e-9)
    samples = files / "samples.safetensors"
    evaluate(files / "samples.npz", "--save-features", samples)
    assert evaluate.record(files, samples, whole)["metrics"] == plain["metrics"]
    assert "holds statistics alone" in evaluate.refuses(statistics, "--save-features", files / "x.safetensors")


def test_the_cache_is_used_and_heals(evaluate: Evaluate, files: Path) -> None:
    cache = files / "cache"
    first = evaluate.record(files, files / "samples.npz", files / "reference.npz", "--cache", cache)
    assert StubExtractor.seen == 110 and len(list(cache.iterdir())) == 2
    again = evaluate.record(files, files / "samples.npz", files / "reference.npz", "--cache", cache)
    assert StubExtractor.seen == 110 and again["metrics"] == first["metrics"]
    for file in cache.iterdir():
        data = bytearray(file.read_bytes())
        data[-5] ^= 1  # one bit of one value
        file.write_bytes(data)
    code, _, err = evaluate(files / "samples.npz", "-r", files / "reference.npz", "--cache", cache)
    assert code == 0 and err.count("damaged") == 2 and err.count("; computed again") == 2
    assert StubExtractor.seen == 220
    changed = SAMPLES.copy()
    changed[3, 0, 0, 0] ^= 1
    np.savez(files / "samples.npz", changed)
    evaluate.record(files, files / "samples.npz", files / "reference.npz", "--cache", cache)
    assert StubExtractor.seen == 280  # other images, computed; the reference, found


def test_comparing(evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(files / "fewer.npz", SAMPLES[:40])
    records = [files / f"{name}.evaluation.json" for name in ("samples", "fewer")]
    for name in ("samples", "fewer"):
        assert evaluate(files / f"{name}.npz", "-r", files / "reference.npz")[0] == 0
    code, out, err = evaluate("compare", *records)
    assert code == 0, err
    assert out.splitlines()[0].split() == ["FID", "sFID", "IS", "precision", "recall"]
    assert "published: learned, 400K" in out and "sample counts differ (40, 60)" in out
    line = next(line for line in out.splitlines() if "learned, 600 epochs" in line)
    assert line.split()[-5:] == ["1.02", "3.78", "270.8", "0.78", "0.66"]
    code, out, _ = evaluate("compare", *records, "--markdown", "--no-published")
    assert out.startswith("|  | FID |") and "| --- |" in out.splitlines()[1] and "published" not in out
    evaluate(files / "samples.npz", "-r", files / "reference.npz", "--out", files / "k5.json", "evaluate.k=5")
    code, _, err = evaluate("compare", records[0], files / "k5.json")
    assert code == 2 and "k was 3 and 5; evaluate both alike" in err
    np.savez(files / "other.npz", REFERENCE[:40])
    evaluate(files / "samples.npz", "-r", files / "other.npz", "--out", files / "other.json")
    code, _, err = evaluate("compare", records[0], files / "other.json")
    assert code == 2 and "against different references" in err and "other.npz" in err
    monkeypatch.setattr(StubExtractor, "published", False)
    settings = ("--out", files / "weights.json", "evaluate.allow_other_weights=true")
    assert "NOT the published" in evaluate(files / "samples.npz", "-r", files / "reference.npz", *settings)[1]
    code, _, err = evaluate("compare", records[0], files / "weights.json")
    assert code == 2 and "different weights of inception" in err
    assert "not a record of `lwd evaluate`" in evaluate("compare", _written(files / "x.json", "{}"))[2]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_bad_input(evaluate: Evaluate, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = files / "reference.npz"

    def array(name: str, **arrays: Any) -> Path:
        np.savez(files / name, **arrays)
        return files / name

    def refused(samples: Path, *arguments: object) -> str:
        return evaluate.refuses(samples, "--reference", good, *arguments)

    assert "arr_0 is float32; images must be uint8" in refused(array("f.npz", arr_0=SAMPLES.astype(np.float32)))
    assert "images must be (N, height, width, 3)" in refused(array("c.npz", arr_0=SAMPLES.transpose(0, 3, 1, 2)))
    assert "no pixel is above 1" in refused(array("r.npz", arr_0=SAMPLES // 128))
    assert "holds 1 image; a distribution needs at least 2" in refused(array("o.npz", arr_0=SAMPLES[:1]))
    assert "neither images (arr_0) nor statistics (mu, sigma); it holds ['x']" in refused(array("x.npz", x=SAMPLES))
    assert "below the number of features, 3" in refused(array("few.npz", arr_0=SAMPLES[:3]))
    statistics = array("wide.npz", mu=np.zeros(768), sigma=np.eye(768))
    err = evaluate.refuses(files / "samples.npz", "--reference", statistics)
    assert "mu is of (768,)" in err and "other features than Inception's 6" in err
    (files / "cut.npz").write_bytes(good.read_bytes()[:-300])
    assert "cut.npz: not a readable npz" in refused(files / "cut.npz")
    assert "no such file or folder" in refused(files / "nowhere")
    assert "holds no pictures" in refused((files / "empty").mkdir() or files / "empty")
    mixed = pictures(files / "mixed", SAMPLES[:20])
    Image.fromarray(SAMPLES[0, :3]).save(mixed / "z.png")
    assert "z.png: pictures of different sizes, 4x3 and 4x4" in refused(mixed)
    (mixed / "z.png").write_bytes(b"no picture")
    assert "z.png: not a readable picture" in refused(mixed)
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(mixed / "z.png")
    assert "8 bits a channel" in refused(mixed)
    saved = files / "saved.safetensors"
    evaluate(good, "--save-features", saved)
    monkeypatch.setattr(StubExtractor, "published", False)
    err = evaluate.refuses(files / "samples.npz", "-r", saved, "evaluate.allow_other_weights=true")
    assert "features of another network: published_weights is True, needed False" in err
    monkeypatch.setattr(StubExtractor, "published", True)
    saved.write_bytes(saved.read_bytes()[:-9])
    assert "saved.safetensors: damaged" in evaluate.refuses(files / "samples.npz", "-r", saved)
    save_file({"a": torch.zeros(1)}, saved)
    assert "not features saved by `lwd evaluate`" in evaluate.refuses(files / "samples.npz", "-r", saved)
    assert "no reference: name one with --reference" in evaluate.refuses(files / "samples.npz")
    assert "one set of samples at a time" in evaluate.refuses(files / "samples.npz", good, "-r", good)
    assert "did you mean 'metrics'" in refused(files / "samples.npz", "evaluate.metric=[fid]")
    assert "not density" in refused(
        files / "samples.npz", "evaluate.metrics=[density]", "evaluate.distances=adm-float16"
    )
    assert not list(files.glob("*evaluation.json"))


def test_missing_weights_name_address_and_setting(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(files))
    plain = Evaluate(monkeypatch, capsys)
    err = plain.refuses(files / "samples.npz", "-r", files / "reference.npz")
    assert "https://github.com/mseitzer/pytorch-fid" in err and "evaluate.weights" in err
    assert "evaluate.dinov2=FOLDER" in plain.refuses(
        files / "samples.npz", "-r", files / "reference.npz", "evaluate.metrics=[fd_dinov2]"
    )


def test_the_real_network_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights in a file: refused, then allowed, and the Inception Score is that of the network's own logits."""
    torch.manual_seed(0)
    network, weights = FidInception(), tmp_path / "w.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights)
    np.savez(tmp_path / "a.npz", SAMPLES[:12])
    np.savez(tmp_path / "b.npz", REFERENCE[:6])
    plain = Evaluate(monkeypatch, capsys)
    settings = ("evaluate.bootstrap=0", "evaluate.metrics=[inception_score, precision, recall]")
    arguments = (tmp_path / "a.npz", "-r", tmp_path / "b.npz", f"evaluate.weights={weights}", *settings)
    assert "evaluate.allow_other_weights=true" in plain.refuses(*arguments)
    code, out, err = plain(*arguments, "evaluate.allow_other_weights=true")
    assert code == 0 and "NOT the published Inception weights" in out, err
    record = json.loads((tmp_path / "a.evaluation.json").read_text())
    assert record["extractors"]["inception"]["published_weights"] is False
    logits = network(torch.from_numpy(SAMPLES[:12]).permute(0, 3, 1, 2)).logits
    assert record["metrics"]["inception_score"] == pytest.approx(inception_score(logits), rel=1e-6)


def test_adms_float16_distances(evaluate: Evaluate, files: Path) -> None:
    """Far from the origin float16 loses the distances altogether, so that the setting shows; labels that do not fit are
    no obstacle in a reference."""
    near = [random.integers(248, 252, (n, 4, 4, 3), dtype=np.uint8) for n in (40, 50)]
    np.savez(files / "samples.npz", near[0])
    np.savez(files / "reference.npz", arr_0=near[1], arr_1=np.zeros(3))
    found = {}
    for distances in ("exact", "adm-float16"):
        setting = f"evaluate.distances={distances}"
        record = evaluate.record(files, files / "samples.npz", files / "reference.npz", setting)
        found[distances] = (record["metrics"]["precision"], record["metrics"]["recall"])
        pools = [features(part)["pool"] for part in (near[1], near[0])]
        assert found[distances] == tuple(precision_recall(*pools, distances=distances))
    assert found["exact"] != found["adm-float16"]
