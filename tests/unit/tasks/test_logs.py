"""Forwarding of the library's log messages, and announcements."""

import logging
import threading

from tasks import logs
from tasks.logs import announce, announcements, forward_logs


def test_messages_of_this_thread_go_to_the_log_of_the_task_with_the_shard(caplog):
    library, task = logging.getLogger("netsim.inversion.engine"), logging.getLogger("a.task")
    with caplog.at_level(logging.INFO, "a.task"), forward_logs(task, lambda: "invert vgg shard 3"):
        library.warning("half as many images at a time: %d", 16)
        library.debug("below the level")
        other = threading.Thread(target=library.warning, args=("from the thread of another task",))
        other.start()
        other.join()
    library.warning("after the block")
    messages = [record.getMessage() for record in caplog.records if record.name == "a.task"]
    assert messages == ["invert vgg shard 3: half as many images at a time: 16"]


def test_the_prefix_is_that_of_the_moment(caplog):
    library, task, shards = logging.getLogger("netsim"), logging.getLogger("a.task"), iter("12")
    with caplog.at_level(logging.INFO, "a.task"), forward_logs(task, lambda: f"shard {next(shards)}"):
        library.info("begun")
        library.info("begun")
    messages = [record.getMessage() for record in caplog.records if record.name == "a.task"]
    assert messages == ["shard 1: begun", "shard 2: begun"]


def test_an_announcement_goes_to_the_log_of_the_flow_and_to_the_terminal(caplog, monkeypatch):
    printed = logging.Handler()
    monkeypatch.setattr(printed, "emit", lambda record: messages.append(record.getMessage()))
    messages: list[str] = []
    monkeypatch.setattr(logs, "get_run_logger", lambda: logging.getLogger("a.flow"))
    announcements.addHandler(printed)
    try:
        announce("waiting")
    finally:
        announcements.removeHandler(printed)
    assert messages == ["waiting"] == [record.getMessage() for record in caplog.records if record.name == "a.flow"]
    assert not announcements.propagate  # or a deployment would print it twice
