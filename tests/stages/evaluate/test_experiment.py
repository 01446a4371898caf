"""`lwd evaluate` as a stage: the judge of built-in data, and a checkpoint's samples without files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lwd.datasets.builtin import digits
from lwd.encoders.decoder import load_classifier
from lwd.evaluation.extractors import DinoExtractor
from lwd.metrics import frechet_distance, gaussian_stats
from lwd.stages import sample, train
from lwd.stages.evaluate import EvaluateSettings, run
from lwd.stages.experiment import Experiment

CONFIG = Path(__file__).parents[3] / "configs" / "digits.yaml"


def lwd(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from lwd.cli.main import main

    monkeypatch.setattr("sys.argv", ["lwd", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_the_judges_numbers(experiment: Experiment, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the judge on the digits themselves, by hand; a file and a stream of one checkpoint are the same images.

    Decoded digits round to 8 bits, which their 17 grey levels are not: 1e-2 of the small distance, 1e-12 between the
    two ways.
    """
    settings = experiment.train.model_copy(update={"schedule": experiment.train.schedule.model_copy(
        update={"kind": "synchronous"})})  # fmt: skip
    experiment = experiment.model_copy(update={"train": settings})
    checkpoint = train.run(experiment)
    folder = sample.run(experiment)
    record = run(experiment)
    assert record is not None and list(record.metrics) == ["frechet", "frechet_real", "accuracy"]
    judge = load_classifier(experiment.data_path)
    with np.load(folder / "images.npz") as file:
        images, labels = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2)[:, :1], file["arr_1"]
    with torch.no_grad():
        stats = {split: gaussian_stats(judge.pooled(digits(split)[0])) for split in ("train", "heldout")}
        pool, logits = judge.pooled(images.float() / 127.5 - 1), judge(images.float() / 127.5 - 1)
    floor = frechet_distance(*stats["heldout"], *stats["train"])
    assert record.metrics["frechet_real"] == pytest.approx(floor, rel=1e-2)
    assert record.metrics["frechet"] == pytest.approx(
        frechet_distance(*gaussian_stats(pool), *stats["heldout"]), rel=1e-2
    )
    assert record.metrics["accuracy"] == float((logits.argmax(1).numpy() == labels).mean())
    assert record.samples["nfe"] > 0 and record.samples["schedule"]
    kept = sorted(path.name.split("-")[0] for path in (experiment.output / "features").iterdir())
    assert kept == ["judge", "judge"]  # the real images of both splits, for the next set of samples

    kind = "train.schedule.kind=synchronous"
    assert lwd(monkeypatch, "evaluate", checkpoint, "-c", CONFIG, *overrides, kind) == 0
    name = f"{checkpoint.parent.name}-{checkpoint.name}.evaluation.json"
    streamed = json.loads((experiment.output / "samples" / name).read_text())
    assert streamed["metrics"] == pytest.approx(record.metrics, rel=1e-5)
    assert streamed["samples"]["checkpoint"] == str(checkpoint)


def test_dinov2_is_the_class_token_of_pil_resized_images(tmp_path: Path) -> None:
    """Against transformers on images that PIL resized. PIL rounds to 8 bits between its two passes and we after both:
    one level of 255 here and there, 1e-2 of a feature."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=224)
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    resized = np.stack([np.asarray(Image.fromarray(i).resize((224, 224), Image.Resampling.BICUBIC)) for i in images])
    x = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).float().permute(0, 3, 1, 2)).pooler_output
    extractor = DinoExtractor(tmp_path, torch.device("cpu"))
    found = extractor(torch.from_numpy(images).permute(0, 3, 1, 2))["pool"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-2)
    assert found.shape == (2, 24) and (found[0] - found[1]).abs().max() > 0.05
    assert extractor.widths == {"pool": 24} and extractor.identity["architecture"].startswith("dinov2, width 24")


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="at least one, each once"):
        EvaluateSettings(metrics=("fid", "fid"))
