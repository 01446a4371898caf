"""Two processes of one launch, forked from the test: what torchrun starts, without the seconds each spends importing.

What torchrun itself does is tested where it is started: tests/distributed/test_sharded.py, tests/faults/test_killed.py.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing import connection, get_context
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState

from children import HANG_S

RANKS = 2


def in_two_processes(log: Path, function: Callable[..., object], *arguments: object) -> str:
    """Run it as both ranks (gloo) at once; what they wrote. Where one fails, the other is killed and the test fails."""
    environment = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ranks = [
        get_context("fork").Process(
            target=_rank,
            args=(log, environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, function, arguments),
            daemon=False,  # which could start no loader's workers
        )
        for rank in range(RANKS)
    ]
    for rank in ranks:
        rank.start()
    try:
        left = {rank.sentinel: rank for rank in ranks}
        while left:
            ended = connection.wait(list(left), timeout=HANG_S)
            assert ended, f"hangs: {log.read_text()[-3000:]}"
            for sentinel in ended:
                rank = left.pop(sentinel)
                rank.join()
                assert rank.exitcode == 0, log.read_text()[-3000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    return log.read_text()


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _rank(log: Path, environment: dict[str, str], function: Callable[..., object], arguments: tuple[object]) -> None:
    """In the child: it becomes a rank, forgets that its parent was the only one, and ends without pytest's exit."""
    code = 1
    with log.open("a") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115 - not pytest's
        try:
            os.environ.update(environment)
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
            function(*arguments)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
