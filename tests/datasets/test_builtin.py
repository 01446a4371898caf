import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lwd.datasets.builtin import DATASETS, digits, every_nth, halved, load
from lwd.errors import UserError


def test_shapes_types_and_range():
    for split, size in (("train", 1352), ("heldout", 445)):
        images, labels = digits(split)
        assert images.shape == (size, 1, 8, 8) and images.dtype == torch.float32
        assert labels.shape == (size,) and labels.dtype == torch.int64
        assert images.min() == -1 and images.max() == 1
        levels = (images + 1) * 8
        assert torch.equal(levels, levels.round())  # the 17 grey levels survive exactly


def test_the_splits_are_the_whole_set_and_share_no_image():
    raw = {row.tobytes() for row in load_digits().data.astype(np.float32)}
    train, heldout = (
        {row.numpy().tobytes() for row in (digits(split)[0].flatten(1) + 1) * 8} for split in ("train", "heldout")
    )
    assert len(raw) == 1797
    assert not train & heldout
    assert train | heldout == raw


def test_labels_belong_to_their_images():
    bunch = load_digits()
    label_of = {row.tobytes(): label for row, label in zip(bunch.data.astype(np.float32), bunch.target, strict=True)}
    images, labels = digits("heldout")
    found = [label_of[row.numpy().tobytes()] for row in (images.flatten(1) + 1) * 8]
    assert found == labels.tolist()


def test_stratified():
    train, heldout = (torch.bincount(digits(split)[1], minlength=10) for split in ("train", "heldout"))
    assert torch.equal(heldout, (train + heldout) // 4)


def test_calls_agree_and_do_not_share_memory():
    first, second = digits("train")[0], digits("train")[0]
    assert torch.equal(first, second)
    first.zero_()
    assert torch.equal(digits("train")[0], second)


def test_half_the_size_by_means_of_2x2_pixels():
    images, labels = halved(digits)("heldout")
    whole, wanted = digits("heldout")
    means = whole.numpy().reshape(445, 1, 4, 2, 4, 2).mean((3, 5))
    assert np.allclose(images.numpy(), means, atol=1e-6) and torch.equal(labels, wanted)  # float32 sums of four


def test_every_nth_by_hand():
    assert every_nth(torch.tensor([0, 1, 0, 0, 1, 0, 1, 3]), 2).tolist() == [0, 0, 1, 0, 1, 1, 0, 0]


def test_by_name():
    assert set(DATASETS) == {"digits", "fashion-mnist", "fashion-mnist-16"}
    assert torch.equal(load("digits", "heldout")[0], digits("heldout")[0])
    with pytest.raises(UserError, match=r"unknown data set 'digit'; did you mean 'digits'\?"):
        load("digit", "train")
