"""Work is cancelled only where a check is installed: inside its block, and in its thread."""

from threading import Thread

import pytest

from netsim.cancellation import cancellation, check_cancelled


class StopError(Exception):
    """Raised by the checks of these tests."""


def stop() -> None:
    raise StopError


def test_nothing_is_cancelled_by_default():
    check_cancelled()


def test_the_error_of_the_check_is_raised_inside_the_block_and_not_after_it():
    with cancellation(stop), pytest.raises(StopError):
        check_cancelled()
    check_cancelled()


def test_the_check_is_removed_when_the_block_fails():
    with pytest.raises(StopError), cancellation(stop):
        check_cancelled()
    check_cancelled()


def test_an_inner_check_replaces_the_outer_one_until_its_block_ends():
    calls: list[str] = []
    with cancellation(lambda: calls.append("outer")):
        with cancellation(lambda: calls.append("inner")):
            check_cancelled()
        check_cancelled()
    assert calls == ["inner", "outer"]


def test_another_thread_is_not_cancelled():
    """A worker computes several shards in threads; each has its own check."""
    finished: list[bool] = []

    def work() -> None:
        check_cancelled()
        finished.append(True)

    with cancellation(stop):
        thread = Thread(target=work)
        thread.start()
        thread.join()
    assert finished == [True]
