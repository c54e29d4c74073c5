"""Calls side by side, with the results and the error that a loop would give."""

import threading

import pytest

from netsim.storage.concurrency import REQUESTS, concurrently


def test_calls_are_made_at_the_same_time_and_results_are_in_order():
    all_at_once = threading.Barrier(REQUESTS, timeout=60)

    def wait(item: int) -> int:
        all_at_once.wait()
        return -item

    assert concurrently(wait, range(REQUESTS)) == [-item for item in range(REQUESTS)]


def test_no_more_threads_than_given_are_used():
    names = concurrently(lambda _: threading.current_thread().name, range(50), threads=2)
    assert len(set(names)) <= 2


def test_the_error_is_that_of_the_first_item_in_order():
    second_failed = threading.Event()

    def fail(item: int) -> None:
        if item == 1:
            second_failed.wait(60)
        else:
            second_failed.set()
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^1$"):
        concurrently(fail, [1, 2])
