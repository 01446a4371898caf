"""`train.cosine_floor`: it reaches the loss, and runs from before it was a setting go on."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lwd.files import checksum
from lwd.models import WEIGHTS
from lwd.stages import train
from lwd.stages.experiment import Experiment
from lwd.stages.train.settings import TrainSettings


def test_the_recipe_names_it_only_where_it_is_another() -> None:
    """A checkpoint of before has no such key in its recipe, and was trained at the default."""
    assert "cosine_floor" not in TrainSettings().recipe() and TrainSettings().cosine_floor == 0.1
    released = TrainSettings(cosine_floor=1e-8).recipe()
    assert released == TrainSettings().recipe() | {"cosine_floor": 1e-8}
    with pytest.raises(ValidationError, match="cosine_floor"):
        TrainSettings(cosine_floor=0)


def test_it_reaches_the_loss(experiment: Experiment) -> None:
    def trained(name: str, **floor: float) -> str:
        update = {"steps": 2, "name": name, "schedule": experiment.train.schedule.model_copy(update={"kind": "offset"})}
        settings = experiment.train.model_copy(update=update | floor)
        return checksum(train.run(experiment.model_copy(update={"train": settings})) / "model" / WEIGHTS)

    assert trained("a") == trained("b", cosine_floor=0.1) != trained("c", cosine_floor=1e-8)
