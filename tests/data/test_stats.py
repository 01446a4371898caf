"""Channel statistics: against torch on everything at once, and the files they live in."""

import pickle
from pathlib import Path

import pytest
import torch

from lwd.data import LatentShards, write_shard, write_stats
from lwd.data.stats import channel_stats, load_stats, save_stats, stats_path
from lwd.errors import UserError
from lwd.groups import Group, Layout


def latents(mean=0.0, std=1.0, count=300, dtype=torch.float32):
    """(count, 3, 4, 5), channels of different scale and offset."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, 4, 5, generator=generator, dtype=torch.float64)
    scale = torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64).view(1, 3, 1, 1)
    return (mean + scale * (x * std + torch.arange(3.0, dtype=torch.float64).view(1, 3, 1, 1))).to(dtype)


def expected(x):
    x = x.double()
    return x.mean((0, 2, 3), keepdim=True).float(), x.std((0, 2, 3), unbiased=False, keepdim=True).float()


@pytest.mark.parametrize("sizes", [[300], [1] * 300, [7, 200, 93], [299, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equals_torch_on_everything_at_once(sizes, dtype):
    x = latents(mean=2.0, dtype=dtype)
    mean, std = channel_stats(x.split(sizes))
    assert mean.shape == std.shape == (1, 3, 1, 1) and mean.dtype == std.dtype == torch.float32
    # Both sides accumulate in float64 and round to float32 once: they may differ by one ulp, 1.2e-7.
    torch.testing.assert_close((mean, std), expected(x), rtol=2.4e-7, atol=0)


@pytest.mark.parametrize("mean", [1e8, -1e8])
def test_a_large_mean_does_not_eat_the_variance(mean):
    x = latents(mean=mean, dtype=torch.float64)
    # E x^2 - (E x)^2 would lose 1e16 * 2^-53 = 1 of a variance of 0.01 to 49. Centred sums of x rounded at 1e8 * 2^-53
    # are good to 1e-8 relative; float32 adds one ulp.
    torch.testing.assert_close(channel_stats(x.split(50)), expected(x), rtol=1e-6, atol=0)


def test_a_stream_is_read_once_and_lazily():
    seen = []

    def stream():
        for i, chunk in enumerate(latents().split(100)):
            seen.append(i)
            yield chunk

    torch.testing.assert_close(channel_stats(stream()), expected(latents()), rtol=2.4e-7, atol=0)
    assert seen == [0, 1, 2]


def test_a_constant_channel_has_deviation_zero():
    x = latents()
    x[:, 1] = 0.1
    assert channel_stats(x.split(100))[1].flatten().tolist()[1] == 0


def test_an_empty_chunk_counts_for_nothing():
    x = latents()
    chunks = [x[:0], x[:100], x[:0], x[100:]]
    torch.testing.assert_close(channel_stats(chunks), expected(x), rtol=2.4e-7, atol=0)


def test_nothing_has_no_statistics():
    with pytest.raises(ValueError, match="no latents"):
        channel_stats([])


def test_files_are_sfds(tmp_path):
    path = stats_path(tmp_path, "latents_sv")
    assert path.name == "latents_sv_stats.pt"
    mean, std = channel_stats([latents()])
    save_stats(path, mean, std)
    stored = torch.load(path, weights_only=True)
    assert set(stored) == {"mean", "std"} and torch.equal(stored["mean"], mean) and torch.equal(stored["std"], std)
    again = load_stats(path, 3)
    assert torch.equal(again[0], mean) and torch.equal(again[1], std)
    assert [p.name for p in tmp_path.iterdir()] == ["latents_sv_stats.pt"]


def test_statistics_in_other_dtypes_become_float32(tmp_path):
    torch.save({"mean": torch.ones(1, 2, 1, 1).double(), "std": torch.ones(1, 2, 1, 1).half()}, tmp_path / "s.pt")
    assert [t.dtype for t in load_stats(tmp_path / "s.pt", 2)] == [torch.float32] * 2


ONES = torch.ones(1, 3, 1, 1)

BAD = {
    "a list": ([ONES, ONES], "not a statistics file"),
    "no std": ({"mean": ONES}, "not a statistics file"),
    "numbers": ({"mean": 0.0, "std": 1.0}, "not a statistics file"),
    "flat": ({"mean": torch.ones(3), "std": torch.ones(3)}, "(3,)"),
    "another width": ({"mean": torch.ones(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)}, "(1, 4, 1, 1)"),
    "std of another width": ({"mean": ONES, "std": torch.ones(1, 4, 1, 1)}, "(1, 4, 1, 1)"),
    "NaN in mean": ({"mean": ONES * float("nan"), "std": ONES}, "not finite"),
    "inf in std": ({"mean": ONES, "std": ONES * float("inf")}, "not finite"),
    "constant": ({"mean": ONES, "std": torch.tensor([1.0, 0.0, 2.0]).view(1, 3, 1, 1)}, "channel 1 is constant"),
    "negative": ({"mean": ONES, "std": torch.tensor([1.0, 1.0, -2.0]).view(1, 3, 1, 1)}, "channel 2"),
}


def refused(path):
    with pytest.raises(UserError) as caught:
        load_stats(path, 3)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=list(BAD))
def test_bad_content_gives_one_line(tmp_path, content, message):
    torch.save(content, tmp_path / "s.pt")
    assert message in refused(tmp_path / "s.pt")


def test_a_missing_file_gives_one_line(tmp_path):
    assert "lwd encode" in refused(tmp_path / "s.pt")


@pytest.mark.parametrize("size", [0, 10, 200, -20])
def test_damaged_files_give_one_line(tmp_path, size):
    path = tmp_path / "s.pt"
    save_stats(path, ONES, ONES)
    path.write_bytes(path.read_bytes()[:size])
    assert "not a statistics file" in refused(path)


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data, protocol=2))])
def test_a_pickled_object_is_refused_and_never_executed(tmp_path, write):
    mark = tmp_path / "executed"
    write({"mean": Trap(mark), "std": ONES}, tmp_path / "s.pt")
    refused(tmp_path / "s.pt")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap must work for the test to mean anything"


def test_a_folders_statistics_are_those_of_all_its_latents(tmp_path):
    """write_shard, write_stats, LatentShards: latents come back standardised (float32 rounding, 1e-5)."""
    layout = Layout([Group("a", 3), Group("b", 2)])
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": 3, "b": 2}
    parts = [{g: 5 + torch.randn(n, c, 2, 2, generator=generator) for g, c in sizes.items()} for n in (7, 5)]
    for number, part in enumerate(parts):
        write_shard(tmp_path / f"{number}.safetensors", layout, part, torch.zeros(len(part["a"]), dtype=torch.int64))
    write_stats(tmp_path, layout)
    x1 = LatentShards(tmp_path, layout, flip=False).read(torch.arange(12)).x1
    torch.testing.assert_close(x1.mean((0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(x1.std((0, 2, 3), correction=0), torch.ones(5), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="shards here"):
        write_stats(tmp_path / "none", layout)
