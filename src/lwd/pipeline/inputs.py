"""What a caller of the pipeline gives: classes and sources of randomness, checked, as one label and seed per image."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from lwd.errors import UserError

Integers = int | Sequence[int] | Tensor

_SEEDS = 2**63 - 1


def read_labels(class_labels: Integers | None, images_per_class: int, num_classes: int) -> Tensor:
    """Labels (N,) int64 on the host, each class ``images_per_class`` times in a row; None: no class.

    Raises UserError for what is not an integer from 0 to ``num_classes`` - 1.
    """
    if images_per_class < 1:
        raise UserError(f"num_images_per_class: must be at least 1, got {images_per_class}")
    if class_labels is None:
        return torch.full((images_per_class,), num_classes)
    labels = _integers(class_labels, "class_labels")
    if bool((wrong := (labels < 0) | (labels >= num_classes)).any()):
        i = int(wrong.nonzero()[0, 0])
        raise UserError(
            f"class_labels[{i}]: class {int(labels[i])}; the model has 0 to {num_classes - 1} (None: no class)"
        )
    return labels.repeat_interleave(images_per_class)


def read_seeds(
    seeds: Integers | None, generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> Tensor:
    """Seeds (count,) int64 on the host: those given, or drawn one by one from ``generator`` (None: torch's global one).

    Of several generators, image i draws from the i-th. Raises UserError where both are given or their number is wrong.
    """
    if seeds is not None and generator is not None:
        raise UserError("seeds, generator: give one of the two, not both")
    if seeds is not None:
        given = _integers(seeds, "seeds")
        if len(given) != count:
            raise UserError(f"seeds: {len(given)} for {count} images; give one per image")
        return given
    if generator is None or isinstance(generator, torch.Generator):
        return torch.cat([_draw(generator) for _ in range(count)])
    if len(generator) != count:
        raise UserError(f"generator: a list of {len(generator)} for {count} images; give one, or one per image")
    return torch.cat([_draw(each) for each in generator])


def _draw(generator: torch.Generator | None) -> Tensor:
    device = None if generator is None else generator.device
    return torch.randint(_SEEDS, (1,), generator=generator, device=device).cpu()


def _integers(value: Integers, where: str) -> Tensor:
    """(n,) int64 on the host, n >= 1."""
    if isinstance(value, Tensor):
        integral = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        if integral and value.ndim <= 1 and value.numel():
            return value.detach().cpu().long().reshape(-1)
    else:
        numbers = list(value) if isinstance(value, Sequence) else [value]
        integral = all(isinstance(x, Integral) and not isinstance(x, bool) for x in numbers)
        if integral and numbers and all(abs(x) <= _SEEDS for x in numbers):
            return torch.tensor(numbers, dtype=torch.int64)
    given = " ".join(repr(value).split())[:80]
    raise UserError(f"{where}: must be an integer or a list of integers below 2^63, got {given}")
