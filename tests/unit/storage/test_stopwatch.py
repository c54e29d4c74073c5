"""Elapsed time, and the part of it that is spent waiting for storage."""

import threading
import time

import pytest

from netsim.storage.stopwatch import Stopwatch, count_waiting, waiting


def test_a_stopwatch_counts_seconds_since_it_was_made():
    watch = Stopwatch()
    time.sleep(0.05)
    first = watch()
    assert 0.05 <= first <= watch() < 5


def test_only_the_time_in_waiting_blocks_is_counted():
    watch = Stopwatch()
    with count_waiting() as waited:
        time.sleep(0.05)
        for _ in range(2):
            with waiting():
                time.sleep(0.02)
    assert 0.04 <= waited.seconds <= watch() - 0.05


def test_time_spent_waiting_for_an_error_counts_too():
    def fail() -> None:
        with waiting():
            time.sleep(0.02)
            raise TimeoutError

    with count_waiting() as waited, pytest.raises(TimeoutError):
        fail()
    assert waited.seconds >= 0.02


def test_waiting_is_free_where_nobody_counts_and_after_the_count_ends():
    with count_waiting() as waited:
        pass
    with waiting():
        time.sleep(0.01)
    assert waited.seconds == 0


def test_each_thread_counts_its_own_waiting():
    def wait() -> None:
        with count_waiting(), waiting():
            time.sleep(0.05)

    with count_waiting() as waited:
        other = threading.Thread(target=wait)
        other.start()
        other.join()
    assert waited.seconds == 0
