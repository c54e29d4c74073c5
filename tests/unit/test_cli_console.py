"""Progress without a terminal: plain lines, with what is left."""

import io
import os
import re
import time
from pathlib import Path

import pytest

from flows.cli import console as terminal
from netsim.store.records import commit_path
from netsim.store.run import Run
from netsim.store.stages import DRAW, TRAIN
from netsim.store.status import StageStatus
from support.sweeps import new_run, tiny


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    """What is printed, to a file."""
    stream = io.StringIO()
    monkeypatch.setattr(terminal.progress, "_file", stream)
    monkeypatch.setattr(terminal, "LOG_INTERVAL", 0.0)
    return stream


def wait_for(log: io.StringIO, pattern: str) -> None:
    """Wait until a line is printed."""
    deadline = time.monotonic() + 20
    while not re.search(pattern, log.getvalue(), re.MULTILINE):
        assert time.monotonic() < deadline, log.getvalue()
        time.sleep(0.01)


def commit(run: Run, *shards: int) -> None:
    """Commit shards of pairs, five seconds apart."""
    for shard in shards:
        run.commit("draw", "pairs", shard, seconds=0)
        when = 1_700_000_000 + 5 * shard
        os.utime(Path(run.url) / commit_path("draw", "pairs", shard), (when, when))


def test_a_log_has_lines_with_the_time_what_is_done_and_what_is_left(log, tmp_path):
    run = new_run(str(tmp_path), tiny())
    commit(run, 0, 1)
    with terminal.progress_bars(run, [DRAW], every=0.01):
        left = r"2 of 4, 12.0 per minute, 0:00:10 left$"
        wait_for(log, rf"^20\d\d-\d\d-\d\d \d\d:\d\d  Shards of pairs drawn: {left}")
        commit(run, 2, 3)
        wait_for(log, r"Shards of pairs drawn: 4 of 4$")


def test_a_log_has_a_line_a_minute_and_not_more(log, monkeypatch, tmp_path):
    monkeypatch.setattr(terminal, "LOG_INTERVAL", 60.0)
    with terminal.progress_bars(new_run(str(tmp_path), tiny()), [DRAW], every=0.01):
        time.sleep(0.3)
    assert log.getvalue() == ""


def test_a_training_tells_its_epochs_and_the_time_that_they_leave(monkeypatch):
    pace = terminal._Pace()
    times = iter([10.0, 14.0])
    monkeypatch.setattr(pace, "_watch", lambda: next(times))

    def training(**epochs: tuple[int, int]) -> StageStatus:
        return StageStatus("train", TRAIN.label, 0, 2, dict.fromkeys(epochs, (0, 1)), None, epochs)

    assert pace.text(training(vgg=(1, 8), wrn2=(0, 8))) == "vgg (epoch 1 of 8)"
    assert pace.text(training(vgg=(2, 8), wrn2=(1, 8))) == "vgg (epoch 2 of 8), wrn2 (epoch 1 of 8), 0:00:26 left"
