"""Logs of the library in the task's own log."""

import logging
import threading

from tasks.logs import forward_logs


def test_what_the_library_says_in_this_thread_goes_to_the_task_with_its_shard(caplog):
    library, task = logging.getLogger("netsim.inversion.engine"), logging.getLogger("a.task")
    with caplog.at_level(logging.INFO, "a.task"), forward_logs(task, lambda: "invert vgg shard 3"):
        library.warning("half as many images at a time: %d", 16)
        library.debug("not this")
        other = threading.Thread(target=library.warning, args=("another task says this",))
        other.start()
        other.join()
    library.warning("nobody listens any more")
    said = [record.getMessage() for record in caplog.records if record.name == "a.task"]
    assert said == ["invert vgg shard 3: half as many images at a time: 16"]
