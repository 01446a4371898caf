"""Stages on data at a URL: the same weights as from the folder, and `lwd encode` that writes there and goes on."""

import hashlib
from pathlib import Path

import pytest
import torch

from lwd.config import load
from lwd.data.remote import RemoteFolder
from lwd.data.remote.listing import write_listing
from lwd.data.writing import write_shard, write_stats
from lwd.errors import UserError
from lwd.files import checksum
from lwd.stages import train
from lwd.stages.encode.run import run as encode
from lwd.stages.experiment import Experiment
from webserver import serving

DIGITS = Path(__file__).parents[2] / "configs" / "digits.yaml"
QUICK = (
    "compute.progress=false",
    "encode.encoder_steps=3",
    "encode.judge_steps=3",
    "encode.shard_images=300",
    "model={name: LightningDiT-Mini/1, num_classes: 10}",
    "train={steps: 6, batch: 16, schedule: synchronous, ema_decay: 0.5}",
)
SHARDS, IMAGES = 5, 20


def config_of(*overrides):
    return load(Experiment, DIGITS, [*QUICK, *overrides])


@pytest.fixture
def small(tmp_path):
    """Five shards of random latents, and room for two of them."""
    layout, generator = config_of().layout, torch.Generator().manual_seed(0)
    folder = tmp_path / "small"
    for number in range(SHARDS):
        tex, sem, features = torch.randn(IMAGES, 70, 4, 4, generator=generator).split((4, 2, 64), dim=1)
        path = folder / "train" / f"latents_rank00_shard{number:04d}.safetensors"
        write_shard(path, layout, {"tex": tex, "sem": sem}, torch.arange(IMAGES) % 10, None, features)
    write_stats(folder / "train", layout)
    write_listing(folder)
    return folder, f"data.cache_gb={2 * path.stat().st_size / 1e9}"


def weights(*overrides):
    """Checksums of what a short training run ends with."""
    folder = train.run(config_of(*overrides))
    return {file.relative_to(folder): checksum(file) for file in folder.glob("*/*.safetensors")}


def test_training_gives_the_same_weights(small, tmp_path):
    pytest.importorskip("aiohttp", reason="HTTP through fsspec takes aiohttp (pip install 'lwd[remote]')")
    folder, room = small
    near = weights(f"output={tmp_path / 'near'}", f"data.path={folder}", "data.window=1")
    with serving(folder) as served:
        far = f"data.path={served.url}", f"data.cache={tmp_path / 'cache'}", room
        assert near == weights(f"output={tmp_path / 'far'}", *far, "data.window=1") and near
        with pytest.raises(UserError, match=r"set data\.window"):
            weights(f"output={tmp_path / 'mixed'}", *far)
        config = config_of(*far)
        assert config.has_shards("train") and not config.has_shards("heldout")
    assert near != weights(f"output={tmp_path / 'other'}", f"data.path={folder}")


@pytest.fixture
def in_a_bucket(monkeypatch):
    """A URL of an S3 server on this machine."""
    server = pytest.importorskip("moto.server", reason="a server of S3 takes moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="S3 through fsspec takes s3fs")
    started = server.ThreadedMotoServer(port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("lwd-bucket")
    yield "s3://lwd-bucket/data"
    s3fs.S3FileSystem.clear_instance_cache()
    started.stop()


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_encode_writes_there_and_goes_on(kind, request, tmp_path, monkeypatch):
    url = f"file://{tmp_path / 'there'}" if kind == "file" else request.getfixturevalue("in_a_bucket")
    there, cache = f"data.path={url}", f"data.cache={tmp_path / 'cache'}"
    upload, sent = RemoteFolder.upload, []

    def broken(self, file, name):
        if len(sent) == 3:
            raise UserError("the line is cut")
        sent.append(name)
        upload(self, file, name)

    monkeypatch.setattr(RemoteFolder, "upload", broken)
    with pytest.raises(UserError, match="the line is cut"):
        encode(config_of(f"output={tmp_path}", there))
    assert sent[0] == "recipe.json" and all(name.startswith("train/") for name in sent[1:])
    assert RemoteFolder(url).read("files.json", 10**6) is None
    monkeypatch.setattr(RemoteFolder, "upload", lambda self, file, name: (sent.append(name), upload(self, file, name)))
    first = tmp_path / "data" / "train" / Path(sent[1]).name
    torn = bytearray(first.read_bytes())
    torn[-1] ^= 1  # as another machine's last bits
    RemoteFolder(url).write(sent[1], bytes(torn))
    RemoteFolder(url).write(f"{sent[1]}.sha256", hashlib.sha256(torn).hexdigest().encode())
    sent.remove(sent[1])
    folder = encode(config_of(f"output={tmp_path}", there))
    assert folder == tmp_path / "data" and sent[-1] == "files.json" and len(sent) == len(set(sent))
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert set(sent) == {name for name in files if not name.startswith(".")}
    for name in sent:
        assert RemoteFolder(url).read(name, 10**8) == (folder / name).read_bytes()
    far, near = config_of(there, cache), config_of(f"data.path={folder}")
    assert far.recipe() == near.recipe() and far.data_fingerprint() == near.data_fingerprint() is not None
    rows = torch.arange(0, 1352, 50)
    pairs = zip(*(config.shards("train", features=True).read(rows) for config in (far, near)), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    count = len(sent)
    encode(config_of(f"output={tmp_path}", there))
    assert len(sent) == count
    with pytest.raises(UserError, match="holds other data"):
        encode(config_of(f"output={tmp_path / 'another'}", there, "seed=1"))


def test_nothing_is_written_over_http(tmp_path):
    with serving(tmp_path) as served, pytest.raises(UserError, match="can be read over HTTP, not written to"):
        pytest.importorskip("aiohttp", reason="HTTP through fsspec takes aiohttp (pip install 'lwd[remote]')")
        encode(config_of(f"output={tmp_path}", f"data.path={served.url}"))
