"""The log: one line a step, written in blocks, and cut back to where a resumed run goes on."""

import json
import math

import pytest
import torch

from lwd.errors import UserError
from lwd.training.logging import MetricLog, Pooled, read_log


def same(tensor):
    return tensor


def log_steps(log, steps):
    for step in steps:
        log.add(step, {"loss": torch.tensor(step / 4), "rho": torch.tensor([step, -1.0])})
    return log.flush()


def line(step):
    return {"step": step, "loss": step / 4, "rho": [float(step), -1.0]}


def test_lines_hold_scalars_and_vectors_in_order(tmp_path):
    path = tmp_path / "deep" / "trace.jsonl"
    log = MetricLog(path, same, write=True)
    assert log_steps(log, range(3)) == line(2)
    assert log_steps(log, range(3, 5)) == line(4)
    assert read_log(path) == [line(step) for step in range(5)]
    assert [json.loads(text) for text in path.read_text().splitlines()] == read_log(path)


def test_nothing_is_written_before_flush_and_nothing_twice(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    log.add(0, {"loss": torch.tensor(1.0)})
    assert read_log(tmp_path / "trace.jsonl") == []
    assert log.flush() == {"step": 0, "loss": 1.0} and log.flush() == {}
    assert len(read_log(tmp_path / "trace.jsonl")) == 1


def test_values_are_those_of_the_moment_and_keep_no_graph(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    weight = torch.tensor(1.5, requires_grad=True)
    log.add(0, {"loss": weight * 2, "half": torch.tensor(0.5, dtype=torch.float64)})
    assert all(not t.requires_grad for _, metrics in log._pending for t in metrics.values())
    assert log.flush() == {"step": 0, "loss": 3.0, "half": 0.5}


def test_reduce_sees_each_metric_of_the_whole_block_at_once(tmp_path):
    shapes = []

    def halve(tensor):
        shapes.append(tuple(tensor.shape))
        return tensor / 2

    log = MetricLog(tmp_path / "trace.jsonl", halve, write=True)
    log_steps(log, range(4))
    assert shapes == [(4,), (4, 2)]
    assert read_log(tmp_path / "trace.jsonl")[3] == {"step": 3, "loss": 3 / 8, "rho": [1.5, -0.5]}


def test_other_processes_reduce_but_do_not_write(tmp_path):
    path, calls = tmp_path / "sub" / "trace.jsonl", []
    log = MetricLog(path, lambda t: calls.append(1) or t, write=False)
    assert log_steps(log, range(2)) == line(1)
    assert len(calls) == 2 and not path.parent.exists()


@pytest.mark.parametrize("first", [0, 1, 3, 5, 9])
def test_resuming_drops_the_lines_of_steps_to_be_done_again(tmp_path, first):
    path = tmp_path / "trace.jsonl"
    log_steps(MetricLog(path, same, write=True), range(5))
    log = MetricLog(path, same, write=True, first_step=first)
    assert read_log(path) == [line(step) for step in range(min(first, 5))]
    log_steps(log, [first])
    assert read_log(path)[-1] == line(first)
    assert [p.name for p in tmp_path.iterdir()] == ["trace.jsonl"]


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_resuming_drops_a_line_cut_short_by_a_kill(tmp_path, cut):
    path = tmp_path / "trace.jsonl"
    log_steps(MetricLog(path, same, write=True), range(3))
    with path.open("a") as file:
        file.write(json.dumps(line(3))[:cut])
    log = MetricLog(path, same, write=True, first_step=4)
    assert read_log(path) == [line(step) for step in range(3)]
    log_steps(log, [4])
    assert read_log(path) == [line(step) for step in (0, 1, 2, 4)]


def test_a_last_line_without_its_newline_is_whole(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(line(0)) + "\n" + json.dumps(line(1)))
    log_steps(MetricLog(path, same, write=True, first_step=2), [2])
    assert read_log(path) == [line(step) for step in range(3)]


def test_a_run_that_is_being_written_can_be_read(tmp_path):
    """The report of a running (or killed) run: all complete lines."""
    path = tmp_path / "trace.jsonl"
    log_steps(MetricLog(path, same, write=True), range(3))
    with path.open("a") as file:
        file.write(json.dumps(line(3))[:-7])
    assert read_log(path) == [line(step) for step in range(3)]


def test_losses_that_are_not_numbers_come_back_as_such(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    log.add(0, {"loss": torch.tensor(math.nan), "other": torch.tensor(-math.inf)})
    assert math.isnan(log.flush()["loss"])
    (only,) = read_log(tmp_path / "trace.jsonl")
    assert math.isnan(only["loss"]) and only["other"] == -math.inf


def test_a_missing_log(tmp_path):
    with pytest.raises(UserError) as caught:
        read_log(tmp_path / "trace.jsonl")
    assert str(caught.value) == f"{tmp_path / 'trace.jsonl'}: no such log"


def pooled(sums, counts):
    return Pooled(torch.tensor(sums, requires_grad=True), torch.tensor(counts))


def test_pooled_means_weigh_every_sample_of_a_block_alike(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    log.add(0, {"loss": torch.tensor(1.0), "bins": pooled([6.0, 0.0, 1.0], [3.0, 0.0, 1.0])})
    log.add(1, {"loss": torch.tensor(2.0), "bins": pooled([4.0, 0.0, 0.0], [1.0, 0.0, 0.0])})
    last = {"step": 1, "loss": 2.0, "bins": [2.5, None, 1.0], "bins_count": [4, 0, 1]}
    assert log.flush() == last
    log.add(2, {"loss": torch.tensor(3.0), "bins": pooled([0.0, 8.0, 0.0], [0.0, 2.0, 0.0])})
    log.flush()
    assert read_log(log.path) == [
        {"step": 0, "loss": 1.0},
        last,
        {"step": 2, "loss": 3.0, "bins": [None, 4.0, None], "bins_count": [0, 2, 0]},
    ]


def test_a_pooled_scalar(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    log.add(0, {"error": pooled(3.0, 4.0), "none": pooled(0.0, 0.0)})
    assert log.flush() == {"step": 0, "error": 0.75, "error_count": 4, "none": None, "none_count": 0}


def test_pooled_means_over_processes_that_saw_different_numbers(tmp_path):
    """Three processes, with 1, 2 and 3 samples of value 1, 2 and 3: 14 over 6 samples, not the mean of the means, 2."""
    everyone = [torch.tensor([[n * n], [n]], dtype=torch.float64) for n in (1.0, 2.0, 3.0)]

    def mean_over_processes(mine):
        assert torch.equal(mine, everyone[1])
        return torch.stack(everyone).mean(dim=0)

    log = MetricLog(tmp_path / "trace.jsonl", mean_over_processes, write=True, processes=3)
    log.add(0, {"bins": pooled([4.0], [2.0])})
    assert log.flush() == {"step": 0, "bins": [pytest.approx(14 / 6, rel=1e-12)], "bins_count": [6]}


def test_metrics_of_some_steps_stand_in_their_lines_alone(tmp_path):
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True)
    for step in range(4):
        log.add(step, {"loss": torch.tensor(0.5)} | ({"heldout": torch.tensor(float(step))} if step % 2 else {}))
    log.flush()
    assert [line.get("heldout") for line in read_log(log.path)] == [None, 1.0, None, 3.0]


def test_the_block_stands_in_its_last_line_and_the_sink_gets_every_line(tmp_path):
    seen = []
    log = MetricLog(tmp_path / "trace.jsonl", same, write=True, sink=seen.extend)
    log.add(0, {"loss": torch.tensor(0.5)})
    log.add(1, {"loss": torch.tensor(0.25)})
    assert log.flush({"images_per_s": 3.0}) == {"step": 1, "loss": 0.25, "images_per_s": 3.0}
    assert seen == read_log(log.path) == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25, "images_per_s": 3.0}]
    other = MetricLog(tmp_path / "other.jsonl", same, write=False, sink=seen.extend)
    other.add(0, {"loss": torch.tensor(0.5)})
    other.flush()
    assert len(seen) == 2
