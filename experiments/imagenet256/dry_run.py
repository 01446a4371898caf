"""Every command of docs/imagenet.md, read from the page and run for real: made-up pictures, random encoders, few steps.

    python experiments/imagenet256/dry_run.py --smallest         # what CI runs: narrow encoders, one process
    python experiments/imagenet256/dry_run.py --processes 2      # the published encoders' sizes, under torchrun

Each command runs as it stands on the page, in a folder of its own, with overrides behind it that make it small. What it
must leave is checked. Prints a line for each; the first failure ends the run with what the command said.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import checks
import lwd
import material
from doc_commands import PAGE, ROOT, Command, commands
from lwd.cli import main as cli
from lwd.config import load
from lwd.encoders.vae import RELEASED
from lwd.errors import UserError
from lwd.models.convert import to_sfd
from lwd.stages.experiment import Experiment
from narrow import narrow

BUDGETS = (70_000, 400_000, 1_000_000, 3_000_000)
"""Steps of training that the page speaks of; each becomes its place in this list, times `Size.steps`."""
TRAIN, VAL = Path("data/imagenet/train"), Path("data/imagenet/val")
OURS = Path("runs/imagenet256/data")
EXPORTED = Path("models/xl-400k")
"""A network of the page, which stands in for SFD's released one."""
LOGS = Path("logs")
MORE = {
    "watch": ("--once",),
    "evaluate": (
        f"evaluate.weights={material.INCEPTION}",
        "evaluate.allow_other_weights=true",
        "evaluate.download=false",
    ),
}
"""What is added to commands with or without a config."""
FAST = ("train.lr=1e-2", "train.ema_decay=0.5")
"""So that a few steps make networks that differ from each other in their samples."""
LOOSE = ("sample.atol=0.1", "sample.rtol=0.1")
"""So that dopri5 takes as few steps as it can."""
IMPORTED_LATE = ("matplotlib.pyplot", "scipy.integrate", "sklearn.decomposition")
"""What stages import where they need it; imported before any of them is forked, it is imported once."""
FEWEST = 4
TAIL = 40
"""Lines of a failed command's output that are shown."""


@dataclass(frozen=True)
class Size:
    """How small everything is; the denoisers keep the recipes' depths where ``depth`` is None."""

    images: int = 256
    classes: int = 16
    batch: int = 16
    steps: int = 2
    probe_steps: int = 8
    samples: int = 16
    width: int = 96
    depth: int | None = None

    @property
    def heldout(self) -> int:
        """Images of the held-out split."""
        return max(2, self.images // 4)


SMALLEST = Size(images=8, classes=4, batch=4, steps=2, probe_steps=4, samples=4, width=32, depth=2)


def small(step: int, size: Size) -> int:
    """A budget of the page -> steps here."""
    if step not in BUDGETS:
        raise checks.Wrong(f"{step} steps are none of the budgets {BUDGETS} that the dry run knows")
    return size.steps * (BUDGETS.index(step) + 1)


def localised(word: str, size: Size) -> str:
    """A word of the page with its absolute paths, released files and steps replaced by those here."""
    word = re.sub(r"(?<!\w)/data/", "data/", word).replace(RELEASED, str(material.VAE))
    return re.sub(r"step-(\d{8})", lambda match: f"step-{small(int(match[1]), size):08d}", word)


def overrides(stage: str, config: Experiment, size: Size) -> list[str]:
    """What makes a command small; ``config`` is what it resolves to on the page."""
    model = [f"model.width={size.width}", "model.heads=2", "model.projector_width=64"]
    model += [] if size.depth is None else [f"model.depth={size.depth}"]
    probe = [
        f"probe.steps={size.probe_steps}",
        "probe.rho_lr=1",
        f"probe.burn_in={size.probe_steps // 2}",
        f"probe.batch={size.batch}",
    ]
    kept = [small(step, size) for step in config.train.checkpoint_steps if step in BUDGETS]
    semvae = [f"semvae.steps={2 * size.steps}", "semvae.warmup=1", f"semvae.batch={size.batch}"]
    by_stage = {
        "encode": _encode(config, size),
        "semvae": semvae if size.depth is None else [*semvae, "semvae.depth=1"],
        "probe": [*model, *probe],
        "sweep": [*model, *probe, "sweep.processes=1"],
        "train": [*model, f"train.batch={size.batch}", f"train.checkpoint_steps={kept}", *FAST],
        "sample": [*model, f"sample.num={size.samples}", f"sample.block={size.samples // 2}", *LOOSE],
    }
    by_stage["evaluate"] = by_stage["sample"]
    if size == SMALLEST:  # fifteen times faster where a CPU has no bfloat16, in which training stays
        for words in (by_stage[name] for name in ("probe", "sweep", "sample")):
            words.append("compute.precision=no")
    if stage == "train":
        by_stage["train"].append(f"train.steps={small(config.train.steps, size)}")
    if stage in ("sample", "evaluate"):
        paths = {"sample.checkpoint": config.sample.checkpoint, "sample.guidance.weak": config.sample.guidance.weak}
        by_stage["sample"] += [f"{key}={localised(str(path), size)}" for key, path in paths.items() if path is not None]
    return by_stage.get(stage, [])


def _encode(config: Experiment, size: Size) -> list[str]:
    """The pictures, the files with the encoders' weights, and shards of which there are several."""
    settings, weights = config.encode, material.WEIGHTS
    repa = settings.repa.encoder
    return [
        f"encode.dataset={TRAIN}",
        f"encode.heldout={VAL}",
        f"encode.texture.path={material.VAE}",
        f"encode.semantic.path={weights / settings.semantic.encoder}",
        *([] if repa in ("semantic", "none") else [f"encode.repa.path={weights / repa}"]),
        f"encode.batch={size.batch}",
        f"encode.shard_images={size.images // 2}",
        *(["encode.decoders=0"] if size == SMALLEST else []),
    ]


class Runner:
    """Runs commands in the present folder, one log each.

    ``processes`` stands in for the page's number under torchrun; 0: no torchrun, and each command in a fork of this
    process, which has everything imported.
    """

    def __init__(self, size: Size, processes: int, smallest: bool) -> None:
        self.size, self._processes, self._smallest, self._count = size, processes, smallest, 0

    def run(self, command: Command) -> str:
        """Run one command and check what it leaves; returns a few words on that. Raises Wrong."""
        words, config = [localised(word, self.size) for word in command.words], None
        if command.config is not None:
            more = overrides(command.stage, load(Experiment, command.config, command.overrides), self.size)
            words += more
            own = [localised(word, self.size) for word in command.overrides]
            config = load(Experiment, command.config, [*own, *more])
        words += MORE.get(command.stage, ())
        if self._smallest and command.stage == "evaluate":
            words += ["evaluate.bootstrap=0", "evaluate.counts=0"]  # half of its time
        self._prepare(command, config, words)
        log = checks.trace(config) if config is not None and command.stage == "train" else None
        before = log.read_bytes() if log is not None and log.exists() else b""
        self._count += 1
        path = LOGS / f"{self._count:02d}-{command.stage.replace(' ', '-')}"
        code = self._start(words, command.processes, path)
        if code:
            raise checks.Wrong(f"exit code {code}\n{_tail(path.with_suffix('.err'))}{_tail(path.with_suffix('.out'))}")
        return self._check(command, config, tuple(words), before, path.with_suffix(".out").read_text())

    def _prepare(self, command: Command, config: Experiment | None, words: list[str]) -> None:
        """What the page leaves to the reader: another folder for an alternative, files from elsewhere."""
        if config is not None and command.stage == "encode" and config.data_path.exists():
            aside = config.data_path.with_name(f"{config.data_path.name}-before-{self._count + 1}")
            config.data_path.rename(aside)
            say(f"     an alternative to what is there: {config.data_path} moved to {aside}")
        elif config is not None and config.data.path is not None and not config.data_path.exists():
            material.write_released_shards(config.data_path, OURS)
        if command.stage == "convert" and not Path(words[1]).exists():
            to_sfd(EXPORTED, Path(words[1]))
        if command.stage == "evaluate":
            reference = Path(words[words.index("--reference") + 1])
            if not reference.exists():
                material.write_reference(reference, TRAIN)
            if not material.INCEPTION.exists():
                material.write_inception()

    def _start(self, words: list[str], processes: int | None, path: Path) -> int:
        """Run `lwd` with ``words``; its exit code."""
        if self._processes == 0:
            child = multiprocessing.get_context("fork").Process(target=_in_fork, args=(words, path))
            child.start()
            child.join()
            return child.exitcode or 0
        program = [str(Path(__file__).with_name("narrow.py"))] if self._smallest else ["-m", "lwd"]
        if processes is not None:
            program = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._processes}", *program]
        environment = os.environ | {"PYTHONPATH": str(Path(lwd.__file__).parents[1])}
        with path.with_suffix(".out").open("w") as out, path.with_suffix(".err").open("w") as err:
            command = [sys.executable, *program, *words]
            return subprocess.run(command, env=environment, stdout=out, stderr=err, check=False).returncode  # noqa: S603

    def _check(
        self, command: Command, config: Experiment | None, words: tuple[str, ...], before: bytes, output: str
    ) -> str:
        if config is not None and command.dry:
            return checks.printed(config, output)
        if config is not None and command.stage == "encode":
            return checks.encoded(config, {"train": self.size.images, "heldout": self.size.heldout})
        if config is not None and command.stage == "train":
            return checks.trained(config, before)
        if config is not None and command.stage in checks.OF_CONFIG:
            return checks.OF_CONFIG[command.stage](config)
        of_words: dict[str, Callable[[], str]] = {
            "evaluate": lambda: checks.evaluated(words, config, output),
            "export": lambda: checks.exported(words),
            "ema": lambda: checks.averaged(words),
        }
        checks.require(bool(output.strip()), "printed nothing")
        return of_words.get(command.stage, lambda: output.strip().splitlines()[0])()


def _in_fork(words: list[str], path: Path) -> None:
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(path.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["lwd", *words]
    cli.main()


def _tail(path: Path) -> str:
    return "".join(f"    {line}\n" for line in path.read_text(errors="replace").splitlines()[-TAIL:])


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder: one to keep, or one that is removed in the end."""
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise UserError(f"{keep}: is not empty; choose another --keep")
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="lwd-dry-run-") as folder:
            yield Path(folder)


def dry_run(text: str, size: Size, processes: int, smallest: bool) -> bool:
    """Run a page's commands in the present folder; whether all went well."""
    todo, runner, begun = commands(text), Runner(size, processes, smallest), time.perf_counter()
    Path("configs").symlink_to(ROOT / "configs")
    LOGS.mkdir()
    material.write_images(TRAIN, size.images, size.classes, seed=0)
    material.write_images(VAL, size.heldout, size.classes, seed=1)
    files = {command.config for command in todo if command.config is not None}
    material.write_weights([load(Experiment, file) for file in sorted(files)])
    say(f"{size.images} + {size.heldout} pictures and the encoders' weights, {time.perf_counter() - begun:.1f} s")
    for command in todo:
        started = time.perf_counter()
        try:
            left = runner.run(command)
        except (checks.Wrong, UserError) as error:
            say(f"failed {time.perf_counter() - started:6.1f} s  {command.line}\n       {error}")
            return False
        say(f"ok {time.perf_counter() - started:6.1f} s  {command.line}\n              -> {left}")
    if not any(command.stage == "evaluate" for command in todo):
        say("the page has no evaluate command yet")
    say(f"{len(todo)} commands, all ok, {time.perf_counter() - begun:.1f} s")
    return True


def main() -> int:
    """Parse the arguments and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=Size.images, help="training pictures (%(default)s)")
    parser.add_argument("--smallest", action="store_true", help="narrow encoders and denoisers, eight pictures")
    parser.add_argument("--processes", type=int, help="of torchrun; 0: no torchrun (with --smallest 0, else 1)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave all there")
    parser.add_argument("--page", type=Path, default=PAGE, help="another page (%(default)s)")
    arguments = parser.parse_args()
    if arguments.images < FEWEST:
        parser.error(f"--images: at least {FEWEST}, for the neighbours of precision and recall")
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    if arguments.smallest:
        torch.set_num_threads(1)  # also: a process with threads of its own is not safe to fork
        narrow()
        for name in IMPORTED_LATE:
            importlib.import_module(name)
    size = SMALLEST if arguments.smallest else Size(images=arguments.images)
    processes = arguments.processes if arguments.processes is not None else int(not arguments.smallest)
    text = arguments.page.read_text()
    with _folder(arguments.keep) as folder:
        os.chdir(folder)
        done = dry_run(text, size, processes, arguments.smallest)
        os.chdir(ROOT)
    return int(not done)


if __name__ == "__main__":
    sys.exit(main())
