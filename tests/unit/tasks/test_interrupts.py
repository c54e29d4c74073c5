"""Interrupts of a process's sweep."""

from threading import Event

import pytest

from tasks import interrupts


@pytest.mark.parametrize("name", ["interrupted", "cancelled_in_prefect", "marked_crashed"])
def test_each_reason_to_stop_ends_the_sweep_like_ctrl_c(name, monkeypatch):
    interrupts.raise_if_interrupted()
    event = Event()
    monkeypatch.setattr(interrupts, name, event)
    event.set()
    with pytest.raises(KeyboardInterrupt):
        interrupts.raise_if_interrupted()
