"""transformers' models from a local folder: what goes wrong becomes one line, and nothing is printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lwd.encoders.pretrained import library, read_as
from lwd.errors import UserError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_UNUSED = "pooler."  # of the class token; some publish none


@contextmanager
def readable_as(folder: Path, what: str) -> Iterator[None]:
    """As `read_as`, without what transformers prints."""
    with read_as(folder, what), _quiet_transformers():
        yield


def with_weights(model_class: Any, folder: Path, config: Any, what: str) -> Any:
    """A model of ``config`` with the folder's weights; those that it has no use for are left out.

    Raises UserError where they cannot be read and where some are missing.
    """
    with readable_as(folder, what):
        model, report = model_class.from_pretrained(
            folder, config=config, local_files_only=True, output_loading_info=True
        )
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith(_UNUSED)):
        raise UserError(f"{folder}: weight {missing[0]!r} is missing; not the weights of {what}")
    return model


def cut_at_layer(config: Any, layer: int | None, where: Path) -> None:
    """Let a model of ``config`` end after block ``layer`` (from 1; None: the last), and with the final norm behind it.

    Raises UserError where it has no such layer.
    """
    depth = config.num_hidden_layers
    if layer is not None and not 1 <= layer <= depth:
        raise UserError(f"{where}: layer {layer}: the model has {depth}; choose one from 1 to {depth}")
    config.num_hidden_layers = depth if layer is None else layer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars, and no table of the text tower's weights, which a vision model leaves unused."""
    logging = library("transformers.utils", "logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
