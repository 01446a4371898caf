"""Source that runs in every step asks the card for nothing, so that the host never waits: by reading it.

What source cannot show, such as the truth of a tensor, `tests/runtime/test_fake_cuda.py` sees. A place that may look
is listed here, with the reason; a listed place that no longer does is an error, too.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "lwd"
HOT = (
    "groups.py",
    "flow/interpolant.py",
    "flow/losses.py",
    "flow/times.py",
    "flow/velocity.py",
    "models/embedders.py",
    "models/layers.py",
    "models/lightningdit.py",
    "models/parts.py",
    "schedules/schedule.py",
    "schedules/polynomial.py",
    "schedules/fixed.py",
    "times/along.py",
    "times/densities.py",
    "times/joint.py",
    "probe/probe.py",
    "probe/task.py",
    "runtime/seeding.py",
    "data/batches.py",
    "training/ema.py",
    "training/power_ema.py",
    "training/guard.py",
    "training/loop.py",
    "training/optim.py",
    "stages/train/heldout.py",
    "ode/control.py",
    "ode/pool.py",
    "ode/slots.py",
    "sample/condition.py",
    "sample/field.py",
    "sample/generate.py",
    "sample/guidance.py",
    "maps/measure.py",
)
METHODS = {"item", "cpu", "tolist", "numpy", "nonzero", "masked_select", "unique", "equal", "allclose"}
NUMBERS = {"float", "int", "bool"}
ONCE = {"__init__", "from_dict", "to_dict", "load"}
"""Make, read or write a thing, not in a step."""
MAY_LOOK = {
    "schedules/polynomial.py": {
        "PolynomialCurve.area": "of a finished curve",
        "PolynomialCurve.formula": "of a finished curve",
    },
    "probe/probe.py": {"Probe.averaged": "at the end", "Probe.frozen": "at the end"},
    "probe/task.py": {"ProbeTask._draw": "a picture"},
    "runtime/seeding.py": {
        "uniform": "the number of a stream",
        "integer": "a seed, on the host",
        "window_order": "an epoch's order, on the host",
        "shard_windows": "an epoch's order, on the host",
    },
    "data/batches.py": {"StepDraws.__call__": "on the host alone: it asks first where the places are"},
    "training/power_ema.py": {
        "gamma_of": "of plain numbers",
        "sigma_rel_of": "of plain numbers",
        "power_decay": "of plain numbers",
        "misfit": "of plain numbers, after training",
        "find_averages": "the name of a file",
    },
    "training/guard.py": {
        "Guard.step": "under an optimiser that is not fused, as documented",
        "Guard.longest_run": "at the end of a block of the log",
        "check_skipped": "where a run ends",
    },
    "sample/field.py": {"Flow.name": "a message", "make_flow": "once, before the first step"},
    "sample/guidance.py": {"_ask_for": "on the host alone: it asks first where w is"},
    "ode/pool.py": {
        "flow_through": "at statuses that are on the host, sent by the tick before",
        "_complain": "at statuses that are on the host",
    },
}


def looks(tree):
    """(function, line, what) of each place that would make the host wait, were its tensor on a card."""

    def visit(node, name):
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}" if name else child.name
            if isinstance(child, ast.Call):
                called = child.func
                if isinstance(called, ast.Attribute) and called.attr in METHODS:
                    yield inner, child.lineno, f".{called.attr}()"
                number = isinstance(called, ast.Name) and called.id in NUMBERS
                if number and child.args and not isinstance(child.args[0], ast.Constant):
                    yield inner, child.lineno, f"{called.id}()"
            if isinstance(child, ast.Subscript) and is_mask(child.slice):
                yield inner, child.lineno, "[mask]"
            yield from visit(child, inner)

    yield from visit(tree, "")


def is_mask(index):
    return isinstance(index, ast.Compare) or (isinstance(index, ast.UnaryOp) and not isinstance(index.op, ast.USub))


def in_the_list(function, allowed):
    return function in allowed or function.rpartition(".")[2] in ONCE


@pytest.mark.parametrize("file", HOT)
def test_nothing_in_a_step_looks_at_the_card(file):
    found = list(looks(ast.parse((SOURCE / file).read_text())))
    allowed = MAY_LOOK.get(file, {})
    wrong = [
        f"{file}:{line} {function}: {what}" for function, line, what in found if not in_the_list(function, allowed)
    ]
    assert not wrong, "\n".join(wrong)
    assert set(allowed) <= {function for function, _, _ in found}, "a place that may look and does not"


def test_the_control_is_found():
    text = "def f(x):\n    if bool(x.any()):\n        return x[x > 0], x[~x], x[-1], float(2), x.sum().item(), int(x)\n"
    assert [what for _, _, what in looks(ast.parse(text))] == ["bool()", "[mask]", "[mask]", ".item()", "int()"]
