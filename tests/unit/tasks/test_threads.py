"""Background threads."""

from contextvars import ContextVar
from threading import Event

import pytest

from tasks.threads import background_thread

setting: ContextVar[str] = ContextVar("setting", default="none")


def test_a_background_thread_has_the_context_of_the_block_and_ends_with_it():
    values: list[str] = []
    ended = Event()

    def work(finished: Event) -> None:
        values.append(setting.get())
        finished.wait(60)
        ended.set()

    token = setting.set("of the block")
    try:
        with background_thread(work):
            assert not ended.is_set()
    finally:
        setting.reset(token)
    assert ended.wait(60) and values == ["of the block"]


def test_a_background_thread_ends_when_the_block_fails():
    ended = Event()

    def work(finished: Event) -> None:
        finished.wait(60)
        ended.set()

    with pytest.raises(ValueError, match="of the block"), background_thread(work):
        raise ValueError("of the block")
    assert ended.wait(60)
