"""Files of Inception weights: every way to read them, and every way in which they can be wrong."""

import hashlib
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

import lwd.metrics.inception_weights as module
from lwd.errors import UserError
from lwd.metrics import FidInception


@pytest.fixture(scope="module")
def network():
    network = FidInception()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1, generator=generator)
    return network


@pytest.fixture(scope="module")
def state(network):
    return OrderedDict((name, tensor.contiguous()) for name, tensor in network.state_dict().items())


def save(path, state):
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "weights.pth", state)


def assert_loaded(loaded, network):
    assert all(torch.equal(one, two) for one, two in zip(loaded.parameters(), network.parameters(), strict=True))
    buffers = zip(loaded.named_buffers(), network.named_buffers(), strict=True)
    assert all(torch.equal(one, two) for (name, one), (_, two) in buffers if "num_batches" not in name)


def test_a_state_dict(network, file):
    loaded = FidInception(str(file))
    assert_loaded(loaded, network)
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not loaded.is_published
    assert FidInception().sha256 is None


def test_without_batch_counters(network, state, tmp_path):
    """As written by PyTorch before 0.4.1; `_metadata` of newer ones does not make them needed either."""
    few = OrderedDict((name, tensor) for name, tensor in state.items() if "num_batches" not in name)
    few._metadata = network.state_dict()._metadata
    assert_loaded(FidInception(save(tmp_path / "few.pth", few)), network)


def test_safetensors(network, state, tmp_path):
    save_file(dict(state), tmp_path / "weights.safetensors")
    assert_loaded(FidInception(tmp_path / "weights.safetensors"), network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("fc.weight"), r"1 tensors missing \['fc.weight'\], 0 unknown"),
        (lambda s: s.update({"AuxLogits.fc.weight": s["fc.weight"]}), r"1 unknown \['AuxLogits.fc.weight'\]"),
        (lambda s: s.update({"fc.weight": s["fc.weight"][:1000]}), r"'fc.weight' has shape \(1000, 2048\)"),
        (lambda s: s.update({"fc.bias": s["fc.bias"] / 0}), "'fc.bias' holds values that are no finite"),
        (lambda s: s.update({"fc.bias": s["fc.bias"].long()}), "'fc.bias' holds values that are no finite"),
    ],
)
def test_other_networks(state, change, words):
    changed = OrderedDict(state)
    change(changed)
    with pytest.raises(UserError, match=f"^other.pth: .*{words}") as caught:
        module.check_weights(changed, state, Path("other.pth"))
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    with pytest.raises(UserError, match=r"other\.pth: not a state dict"):
        FidInception(save(tmp_path / "other.pth", {"epoch": 3}))
    with pytest.raises(UserError, match=r"other\.pth: not the FID Inception network: 472 tensors missing"):
        FidInception(save(tmp_path / "other.pth", {"x": torch.zeros(1)}))


def test_damaged_and_missing_files(file, tmp_path):
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"cut.pth: cut short"):
        FidInception(tmp_path / "cut.pth")
    with pytest.raises(UserError, match=rf"none.pth: no such file; .*{module.PUBLISHED_URL}"):
        FidInception(tmp_path / "none.pth")


# The published file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *args, **kwargs: pytest.fail("went to the network"))
    return tmp_path / "checkpoints" / module.PUBLISHED_NAME


def test_nothing_is_fetched_unless_asked_for(cache):
    with pytest.raises(UserError, match=rf"no Inception weights there; fetch {module.PUBLISHED_URL}") as caught:
        FidInception.published()
    assert str(cache) in str(caught.value)


def test_another_file_in_the_cache(cache, file):
    cache.parent.mkdir()
    cache.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="not the published Inception weights, or damaged"):
        FidInception.published()


def test_the_file_in_the_cache(cache, file, network, monkeypatch):
    cache.parent.mkdir()
    cache.write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "PUBLISHED_SHA256", digest)
    monkeypatch.setattr("lwd.metrics.inception.PUBLISHED_SHA256", digest)
    loaded = FidInception.published()
    assert_loaded(loaded, network)
    assert loaded.is_published


def test_a_named_file_is_preferred(cache, file, network):
    assert_loaded(FidInception.published(file), network)


def test_fetched_when_asked_for(cache, file, network, monkeypatch):
    asked = {}

    def fetch(url, target, hash_prefix, progress):
        asked.update(url=url, hash_prefix=hash_prefix)
        cache.write_bytes(file.read_bytes())

    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "PUBLISHED_SHA256", digest)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert_loaded(FidInception.published(download=True), network)
    assert asked == {"url": module.PUBLISHED_URL, "hash_prefix": digest}


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError('invalid hash value\n(expected "67")')])
def test_no_network(cache, monkeypatch, error):
    def fetch(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(UserError, match=r"cannot be fetched .*; put the file at .*, or name yours") as caught:
        FidInception.published(download=True)
    assert str(caught.value).startswith(module.PUBLISHED_URL)
    assert "\n" not in str(caught.value)


def test_the_checksum_is_that_of_the_name():
    assert module.PUBLISHED_SHA256[:8] == module.PUBLISHED_NAME.removesuffix(".pth").rpartition("-")[2]
    assert len(module.PUBLISHED_SHA256) == 64
