"""Data at a URL: the same batches as from a folder, whatever the cache holds, and what becomes of all that fails."""

import hashlib
import json
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import pytest
import torch
from safetensors.torch import save
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from lwd.cli.main import app
from lwd.config import load
from lwd.data.batches import StepBatches
from lwd.data.encoded import read_manifest
from lwd.data.order import WindowOrder
from lwd.data.remote import Mirror, RemoteFolder
from lwd.data.remote.cache import Cache, locked
from lwd.data.remote.folder import Entry
from lwd.data.remote.listing import write_listing
from lwd.data.shards import LatentShards
from lwd.data.stats import save_stats, stats_path
from lwd.data.writing import write_shard
from lwd.errors import UserError
from lwd.groups import Group, Layout
from lwd.run import DataConfig, RunConfig
from webserver import serving

LAYOUT = Layout([Group("tex", 2), Group("sem", 1)])
LENGTHS = (8, 8, 5, 8, 8, 3, 8, 8)
SHARD = "train/3.safetensors"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data folder of eight shards of random values; some are shorter than others."""
    folder = tmp_path_factory.mktemp("source")
    generator = torch.Generator().manual_seed(0)
    for number, rows in enumerate(torch.arange(sum(LENGTHS)).split(LENGTHS)):
        drawn = torch.randn(len(rows), 12, 16, 16, generator=generator).split((2, 1, 2, 1, 3, 3), dim=1)
        plain, twins = dict(zip(LAYOUT.names, drawn[:2], strict=True)), dict(zip(LAYOUT.names, drawn[2:4], strict=True))
        write_shard(folder / "train" / f"{number}.safetensors", LAYOUT, plain, rows, twins, *drawn[4:])
    for key, channels in (("latents", 2), ("latents_sv", 1)):
        shape = (1, channels, 1, 1)
        save_stats(stats_path(folder / "train", key), torch.full(shape, 0.5), torch.full(shape, 2.0))
    (folder / "texture.safetensors").write_bytes(b"small files are mirrored, whatever they are called")
    write_listing(folder)
    return folder


@pytest.fixture
def served(source, tmp_path):
    pytest.importorskip("aiohttp", reason="HTTP through fsspec takes aiohttp (pip install 'lwd[remote]')")
    copy = tmp_path / "served"
    shutil.copytree(source, copy)
    with serving(copy) as served:
        yield served


def size_of(folder, shards=None):
    """Bytes of so many shards, the largest; of all."""
    sizes = [file.stat().st_size for file in (folder / "train").glob("*.safetensors")]
    return sum(sorted(sizes, reverse=True)[:shards])


def mirrored(url, cache, limit=10**9, sleep=None):
    """The split ``train`` at a URL."""
    found = Mirror(RemoteFolder(url, sleep or never), cache, limit)
    return LatentShards(found.path / "train", LAYOUT, source=found.split("train"))


def never(seconds):
    raise AssertionError("nothing failed, so nothing waits")


def in_cache(cache):
    """Bytes in the cache, with what is on its way there."""
    with locked(Cache(cache / "shards", 0).room):
        return sum(file.stat().st_size for file in (cache / "shards").iterdir() if file.is_file())


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("window", "batch"), [(1, 4), (2, 5), (3, 16), (8, 7), (20, 60)])
def test_windows_mix_all_images_of_few_shards_at_a_time(window, batch):
    order, size = WindowOrder(LENGTHS, window, 3, batch), sum(LENGTHS)
    steps = 3 * size // batch + 1
    seen = torch.cat([order.images(step) for step in range(steps)])
    shard_of = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    for epoch in range(3):
        images = seen[epoch * size : (epoch + 1) * size]
        assert torch.equal(images.sort().values, torch.arange(size))
        visited = list(dict.fromkeys(shard_of[images].tolist()))
        groups = [visited[start : start + window] for start in range(0, len(visited), window)]
        ends = [0, *accumulate(sum(LENGTHS[shard] for shard in group) for group in groups)]
        for group, start, stop in zip(groups, ends, ends[1:], strict=False):
            assert set(shard_of[images[start:stop]].tolist()) == set(group)
            if window > 1 and stop - start > 12:
                assert images[start:stop].tolist() != sorted(images[start:stop].tolist())
    assert not torch.equal(seen[:size], seen[size : 2 * size])
    for step in range(steps - 2):
        ahead = order.ahead(step)
        assert set(shard_of[order.images(step)].tolist()) <= set(ahead) and len(set(ahead)) == len(ahead)
        later = shard_of[seen[(step + 1) * batch :]].tolist()
        others = [shard for shard in later if shard not in ahead]
        if others:  # at least one whole window comes before the first shard that nobody has sent for
            assert len(set(later[: later.index(others[0])])) >= min(window, 2)


def test_a_batch_larger_than_a_window_is_refused(source):
    shards = LatentShards(source / "train", LAYOUT)
    with pytest.raises(UserError, match=r"data\.window=1: so many shards hold 8 images, a batch has 9"):
        StepBatches(shards, 9, seed=0, window=1)


@pytest.mark.parametrize("kind", ["file", "http"])
@pytest.mark.parametrize("window", [None, 1, 2])
def test_the_same_batches_as_from_the_folder(source, request, tmp_path, kind, window):
    url = f"file://{source}" if kind == "file" else request.getfixturevalue("served").url
    cache, limit = tmp_path / "cache", size_of(source, 2 * window if window else None)
    far, near = mirrored(url, cache, limit), LatentShards(source / "train", LAYOUT)
    assert len(far) == len(near) and far.lengths == LENGTHS and torch.equal(far.labels(), near.labels())
    assert far.shape == near.shape and far.feature_dim == 3 and far.feature_grid == (16, 16)
    ours, theirs = (StepBatches(shards, 6, seed=1, window=window) for shards in (far, near))
    for step in range(30):
        assert same(ours[step].batch, theirs[step].batch)
        assert in_cache(cache) <= limit
    if window == 1:
        assert in_cache(cache) < size_of(source) / 2
    backwards = torch.arange(sum(LENGTHS) - 1, -1, -1)
    for rows in backwards.split(7):
        assert same(far.read(rows), near.read(rows))


def test_it_may_be_pickled_and_read_by_workers(source, tmp_path):
    far, near = mirrored(f"file://{source}", tmp_path), LatentShards(source / "train", LAYOUT)
    rows = torch.tensor([0, 20, 41, 55])
    far.read(rows)
    assert same(pickle.loads(pickle.dumps(far)).read(rows), near.read(rows))
    loaders = [DataLoader(StepBatches(s, 6, 1), None, sampler=range(4), num_workers=1) for s in (far, near)]
    for one, two in zip(*loaders, strict=True):
        assert same(one.batch, two.batch)


def test_a_shard_is_fetched_once_by_all_who_share_a_cache(served, tmp_path):
    everyone = [mirrored(served.url, tmp_path) for _ in range(3)]
    assert served.asked["texture.safetensors"] == 1 and served.asked[SHARD] == 0
    rows = torch.arange(sum(LENGTHS))
    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(lambda shards: shards.read(rows), everyone))
    assert same(batches[0], batches[1]) and same(batches[0], batches[2])
    assert {served.asked[f"train/{number}.safetensors"] for number in range(len(LENGTHS))} == {1}


def test_a_cache_too_small_is_said_before_anything_is_read(source, tmp_path):
    url = f"file://{source}"
    shards = mirrored(url, tmp_path, size_of(source) - 1)
    with pytest.raises(UserError, match=r"all read at random, do not fit into data\.cache_gb=.*set data\.window"):
        StepBatches(shards, 6, seed=0)
    with pytest.raises(UserError, match=r"at a time do not fit into data\.cache_gb=.*a smaller data\.window"):
        StepBatches(shards, 6, seed=0, window=4)
    with pytest.raises(UserError, match=r"a shard of .* GB is over data\.cache_gb="):
        mirrored(url, tmp_path, size_of(source, 1) - 1)
    with pytest.raises(UserError, match=r"bytes of small files, over data\.cache_gb"):
        mirrored(url, tmp_path / "another", 10)


def test_what_a_killed_run_left_makes_room(source, tmp_path):
    limit, left = size_of(source, 2), tmp_path / "shards" / f".{'0' * 64}.safetensors.1.tmp"
    left.parent.mkdir()
    left.write_bytes(bytes(limit - 1))
    mirrored(f"file://{source}", tmp_path, limit).read(torch.tensor([0]))
    assert not left.exists()


def test_two_that_wait_for_room_do_not_wait_for_each_other(tmp_path, monkeypatch):
    """One has a shard's lock, and of an earlier try a file of it, while another, which has the room, finds none."""
    contents = [save({"x": torch.full((8,), float(number))}) for number in range(2)]
    first, second = (Entry(bytes=len(c), sha256=hashlib.sha256(c).hexdigest()) for c in contents)
    cache, began, waiting = Cache(tmp_path, len(contents[0])), threading.Event(), threading.Event()
    left = tmp_path / f".{first.sha256}.safetensors.1.tmp"
    left.write_bytes(contents[0])
    found = Cache._oldest_first

    def oldest_first(self):  # of the second: begins while the first has its lock, but not yet the room
        if threading.current_thread() is other:
            began.set()
            assert waiting.wait(10)
        return found(self)

    def watched(path, wait=True):
        if path.name == "room" and threading.current_thread() is not other:
            waiting.set()
        return locked(path, wait)

    def get(entry, content):
        return cache.shard(entry, lambda path: path.write_bytes(content))["x"]

    monkeypatch.setattr(Cache, "_oldest_first", oldest_first)
    monkeypatch.setattr("lwd.data.remote.cache.locked", watched)
    other = threading.Thread(target=get, args=(second, contents[1]), daemon=True)
    one = threading.Thread(target=get, args=(first, contents[0]), daemon=True)
    other.start()
    assert began.wait(10)
    one.start()
    for thread in (one, other):
        thread.join(10)
        assert not thread.is_alive()


def test_what_may_pass_is_tried_again(served, tmp_path):
    waits = []
    served.faults = {"files.json": [503], "train/index.json": [500, 429], SHARD: [-1000, 502, 0]}
    far = mirrored(served.url, tmp_path, sleep=waits.append)
    assert waits == [1, 1, 2]
    near = LatentShards(served.folder / "train", LAYOUT)
    rows = torch.arange(sum(LENGTHS))
    assert same(far.read(rows), near.read(rows)) and waits[3:] == [1, 2, 4]
    served.faults = {"files.json": [503] * 5}
    with pytest.raises(UserError, match=r"/files.json: 5 tries failed \(ClientResponseError: 503.*start again later"):
        mirrored(served.url, tmp_path, sleep=waits.append)
    assert waits[6:] == [1, 2, 4, 8]


def test_what_failed_is_fetched_when_it_is_asked_for_again(served, tmp_path):
    far = mirrored(served.url, tmp_path)
    served.faults = {SHARD: [403]}
    with pytest.raises(UserError, match=r"no access \(ClientResponseError: 403"):
        far.read(torch.tensor([22]))
    assert same(far.read(torch.tensor([22])), LatentShards(served.folder / "train", LAYOUT).read(torch.tensor([22])))


def test_what_is_gone_or_changed_is_said_in_one_line(served, tmp_path):
    shard = served.folder / SHARD
    whole = shard.read_bytes()
    for content, said in (
        (whole[:-1] + b"!", "its checksum is not the one that is listed; it was changed after it was listed"),
        (whole + b"!", "longer than the .* bytes that are listed"),
    ):
        shard.write_bytes(content)
        with pytest.raises(UserError, match=said):
            mirrored(served.url, tmp_path).read(torch.tensor([22]))
        assert not any((tmp_path / "shards").glob("*.safetensors")) and not any((tmp_path / "shards").glob(".*.tmp"))
    shard.unlink()
    with pytest.raises(UserError, match=r"train/3\.safetensors: not there"):
        mirrored(served.url, tmp_path).read(torch.tensor([22]))
    (served.folder / "texture.safetensors").unlink()
    with pytest.raises(UserError, match=r"texture\.safetensors: not there"):
        mirrored(served.url, tmp_path / "another")
    (served.folder / "files.json").unlink()
    with pytest.raises(UserError, match=r"no files\.json; `lwd encode` writes it"):
        mirrored(served.url, tmp_path)


@pytest.mark.parametrize("name", ["../stolen", "/stolen", "train/../../stolen", "a/b/c", ".hidden", "C:\\stolen", ""])
def test_no_name_leads_out_of_the_cache(source, tmp_path, name):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    listing = json.loads((folder / "files.json").read_text())
    listing["files"][name] = {"bytes": 3, "sha256": "0" * 64}
    (folder / "files.json").write_text(json.dumps(listing))
    with pytest.raises(UserError, match=r"files\.json: not a list of a data folder's files"):
        mirrored(f"file://{folder}", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [0] * 9}, "other tensors or labels than listed"),
        ({"labels": [1] * 8}, "other tensors or labels than listed"),
        ({"tensors": {"latents": ["float32", [10**9, 2, 4, 4]]}}, "cannot be in .* bytes"),
        ({"tensors": {"latents": ["pickle", [8, 2, 4, 4]]}}, "cannot be in .* bytes"),
        ({"bytes": -1}, "not a list of shards"),
        ({"sha256": "../../x"}, "not a list of shards"),
    ],
)
def test_a_list_that_lies_reads_nothing_it_should_not(source, tmp_path, change, said):
    """Rows are gathered by address: what is listed of a shard must be what is in it."""
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    path, files = folder / "train" / "index.json", folder / "files.json"
    index, listing = (json.loads(file.read_text()) for file in (path, files))
    row = index["shards"]["3.safetensors"]
    row |= change
    if len(row["labels"]) == 9:
        row["tensors"] = {key: [dtype, [9, *shape[1:]]] for key, (dtype, shape) in row["tensors"].items()}
    text = json.dumps(index).encode()
    path.write_bytes(text)
    listing["files"]["train/index.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    files.write_text(json.dumps(listing))
    with pytest.raises(UserError, match=said):
        mirrored(f"file://{folder}", tmp_path / "cache").read(torch.tensor([22]))


def test_a_list_of_no_shards_is_refused(source, tmp_path):
    folder, text = tmp_path / "source", json.dumps({"format": "lwd.shards/1", "shards": {}}).encode()
    shutil.copytree(source, folder)
    (folder / "train" / "index.json").write_bytes(text)
    listing = json.loads((folder / "files.json").read_text())
    listing["files"]["train/index.json"] = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (folder / "files.json").write_text(json.dumps(listing))
    with pytest.raises(UserError, match=r"not a list of shards: shards: .*at least 1"):
        mirrored(f"file://{folder}", tmp_path / "cache")


def test_links_are_not_listed(source, tmp_path):
    """Whatever lies in a data folder is published: no link may name a file of somewhere else."""
    folder, secret = tmp_path / "source", tmp_path / "secret.txt"
    shutil.copytree(source, folder)
    secret.write_text("mine")
    for place in (folder / "notes.txt", folder / "train" / "more.txt"):
        place.symlink_to(secret)
    result = CliRunner().invoke(app, ["data", "index", str(folder)])
    assert result.exit_code == 0 and result.stdout.count("wrote ") == 2
    said = result.stderr.splitlines()
    assert len(said) == 2 and "notes.txt: left out, since it is a link" in said[0] and "train/more.txt: left" in said[1]
    listed = json.loads((folder / "files.json").read_text())["files"]
    assert set(listed) == {
        *("texture.safetensors", "train/index.json", "train/latents_stats.pt", "train/latents_sv_stats.pt")
    }
    assert (folder / "files.json").read_bytes() == (source / "files.json").read_bytes()
    with pytest.raises(UserError, match=r"notes\.txt: is a link, which is not copied"):
        RemoteFolder(f"file://{tmp_path / 'there'}", never).upload(folder / "notes.txt", "notes.txt")
    for path in (folder / "train" / "3.safetensors", folder / "train"):
        path.rename(tmp_path / "elsewhere" if path.is_dir() else tmp_path / path.name)
        path.symlink_to(tmp_path / ("elsewhere" if path.name == "train" else path.name))
        result = CliRunner().invoke(app, ["data", "index", str(folder)])
        assert result.exit_code == 2 and result.stderr.startswith(f"lwd: {path}: is a link, which is not followed")


def test_a_folder_where_a_file_should_be_is_said_at_once(source, tmp_path):
    """Nothing waits (`never`): a second try would find the same."""
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    (folder / "texture.safetensors").unlink()
    (folder / "texture.safetensors").mkdir()
    with pytest.raises(UserError, match=r"source/texture\.safetensors: is no file.*IsADirectoryError") as error:
        mirrored(f"file://{folder}", tmp_path / "cache")
    assert "\n" not in str(error.value)
    remote = RemoteFolder(f"file://{folder}", never)
    with pytest.raises(UserError, match=r"files\.json/x: is no file, or not in a folder"):
        remote.write("files.json/x", b"")
    with pytest.raises(UserError, match=r"source/texture\.safetensors: is no file"):
        remote.write("texture.safetensors", b"")


def test_errors_name_the_url_and_not_the_cache(source, tmp_path):
    """Of a file that is mirrored, of a folder, of a shard, and of what a stage says of the data, in any process."""
    folder, cache = tmp_path / "source", tmp_path / "cache"
    shutil.copytree(source, folder)
    (folder / "train" / "latents_sv_stats.pt").write_bytes(b"?")
    shard = folder / "train" / "3.safetensors"
    shard.write_bytes(b"?" * shard.stat().st_size)
    listing = json.loads((folder / "train" / "index.json").read_text())
    listing["shards"]["3.safetensors"]["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    (folder / "train" / "index.json").write_text(json.dumps(listing))
    said = []
    for spoilt in (True, False):
        if not spoilt:
            shutil.copy(source / "train" / "latents_sv_stats.pt", folder / "train")
        listed = {"format": "lwd.files/1", "files": {}}
        for name in ("train/index.json", "train/latents_stats.pt", "train/latents_sv_stats.pt"):
            content = (folder / name).read_bytes()
            listed["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "files.json").write_text(json.dumps(listed))
        with pytest.raises(UserError) as error:
            mirrored(f"file://{folder}", cache).read(torch.tensor([22]))
        said.append(str(error.value))
    about = ["groups=[{name: tex, channels: 2}, {name: sem, channels: 1}]", "leader=tex", "model.num_classes=5"]
    config = load(RunConfig, None, [*about, f"data.path=file://{folder}", f"data.cache={cache}"])
    for open_it in (lambda: config.check_labels(config.shards("train", False)), lambda: config.shards("other", False)):
        with pytest.raises(UserError) as error:
            open_it()
        said.append(str(error.value))
    with pytest.raises(UserError) as error:
        read_manifest(config.data_path)
    said.append(str(pickle.loads(pickle.dumps(error.value))))
    wanted = (
        "train/latents_sv_stats.pt: not a stat",
        "train/3.safetensors: not a read",
        "train: labels run",
        "other: no",
    )
    for line, begin in zip(said, (*wanted, "manifest.json: no such"), strict=True):
        assert line.startswith(f"file://{folder}/{begin}") and str(cache) not in line


def test_what_someone_removed_from_the_cache_is_fetched_again(source, tmp_path):
    """Errors name the URL, where nothing is wrong."""
    url = f"file://{source}"
    path = Mirror(RemoteFolder(url, never), tmp_path, 10**9).path
    (path / "texture.safetensors").unlink()
    (path / "train" / "latents_stats.pt").write_bytes(b"")
    before = (path / "train" / "index.json").stat().st_ino
    assert Mirror(RemoteFolder(url, never), tmp_path, 10**9).path == path
    for name in ("texture.safetensors", "train/latents_stats.pt"):
        assert (path / name).read_bytes() == (source / name).read_bytes()
    assert (path / "train" / "index.json").stat().st_ino == before


@pytest.mark.parametrize("text", ["s3://bucket/Data", "S3://bucket/Data/", "s3:/bucket/Data"])
def test_a_url_is_meant_where_it_is_written_a_little_otherwise(text):
    """None is a folder "S3:" or "s3:"."""
    assert load(DataConfig, None, [f"path={text}"]).path == "s3://bucket/Data"


def test_protocols_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nosuch://bucket/data/files\.json: cannot be used"):
        Mirror(RemoteFolder("nosuch://bucket/data", never), tmp_path, 10**9)
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"gcsfs.*pip install"):
            Mirror(RemoteFolder("gs://bucket/data", never), tmp_path, 10**9)


def test_secrets_in_a_url_are_not_shown():
    assert RemoteFolder("https://me:secret@host/data").shown == "https://host/data"


def test_a_url_is_a_setting_and_a_path_one_too(tmp_path):
    about = ["groups=[{name: tex, channels: 2}]", "leader=tex"]
    for text in ("s3://bucket/data", "file:///data", "https://host:80/data/"):
        assert load(RunConfig, None, [*about, f"data.path={text}"]).data.path == text.rstrip("/")
    assert load(RunConfig, None, [*about, f"data.path={tmp_path}"]).data_path == tmp_path
    with pytest.raises(UserError, match=r"data\.path"):
        load(RunConfig, None, [*about, "data.path=3"])
