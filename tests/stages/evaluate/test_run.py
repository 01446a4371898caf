"""The command: what it reads, what it writes, what it keeps, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_command import REFERENCE, SAMPLES, Evaluate, features, pictures
from safetensors.torch import save_file

from lwd.images.npz import write_npz
from lwd.metrics import FidInception, frechet_distance, gaussian_stats, inception_score, precision_recall
from stub_extractor import StubExtractor


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
    assert "images.npz: missing; make the samples again" in evaluate.refuses(folder, "-r", files / "reference.npz")


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
    for option in ("--save-statistics", "--save-features"):  # and they stay what they are
        saved = files / f"{option}.safetensors"
        assert evaluate(files / "adm.npz", option, saved)[0] == 0
        again = evaluate.record(files, files / "samples.npz", saved)
        assert [again["metrics"][m] for m in ("fid", "sfid")] == pytest.approx([adm["fid"], adm["sfid"]], rel=1e-12)
        assert again["details"]["fid"]["statistics"]["reference"].startswith("stored ")
        assert again["details"]["fid"]["statistics"]["samples"] == "computed"
    assert again["metrics"] == pytest.approx(adm, rel=1e-12)  # threads add up in another order
    assert evaluate(files / "bare.npz", "--save-statistics", saved)[0] == 0
    fid = evaluate.record(files, files / "samples.npz", saved)["metrics"]["fid"]
    assert fid == pytest.approx(adm["fid"], rel=1e-12)
    record = evaluate.record(files, files / "adm.npz", files / "reference.npz")
    assert "fid" not in {**record["intervals"], **record["extrapolations"]}  # the images are not behind it
    assert "precision" in record["intervals"]
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
    random = np.random.default_rng(1)
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
