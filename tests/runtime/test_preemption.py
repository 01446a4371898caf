"""Signals that stop a run: what is noted, what is ignored, and how it ends."""

import os
import signal

import pytest
import torch
import typer

from lwd.console import one_line_errors
from lwd.errors import Interrupted, Preempted
from lwd.runtime.preemption import SIGNALS, Preemption


@pytest.fixture(autouse=True)
def as_it_was():
    """The suite itself may run with SIGINT and SIGHUP ignored, as by nohup or in the background of a script."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGINT, Interrupted, 130),
        (signal.SIGTERM, Preempted, 75),
        (signal.SIGHUP, Preempted, 75),
        (signal.SIGUSR1, Preempted, 75),
    ],
)
def test_the_first_signal_leaves_a_note_and_an_exit_code(number, kind, code, capsys):
    with pytest.raises(typer.Exit) as caught, one_line_errors(), Preemption() as preemption:
        assert not preemption.requested(1)
        os.kill(os.getpid(), number)
        assert preemption.requested(2)
    assert type(caught.value.__context__) is kind and caught.value.exit_code == code
    assert "asked to stop" in capsys.readouterr().err


def test_the_second_ctrl_c_leaves_at_once():
    with pytest.raises(KeyboardInterrupt), Preemption():
        os.kill(os.getpid(), signal.SIGTERM)  # counts for no Ctrl-C
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_with_several_processes_a_launcher_may_pass_it_on():
    with Preemption(lambda tensor: tensor, torch.device("cpu")) as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.requested(10) and preemption.signal == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_from_birth_stays_ignored(number):
    """As by nohup, or for SIGINT in the background of a script."""
    signal.signal(number, signal.SIG_IGN)
    with Preemption() as preemption:
        os.kill(os.getpid(), number)
        assert not preemption.requested(1) and signal.getsignal(number) == signal.SIG_IGN
    assert signal.getsignal(number) == signal.SIG_IGN
