"""Freed memory stays in the process, in threads too."""

import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

from netsim import allocator
from netsim.allocator import in_main_arena, release_memory, retained_bytes, retaining_memory

needs_glibc = pytest.mark.skipif(allocator._glibc() is None, reason="malloc is not glibc's")

# Page faults of tensors of 100 MB that a function makes one after the other, in a thread with an arena of its own.
FAULTS = """
    import resource, sys, threading, time
    import torch
    from netsim.allocator import retaining_memory

    def work():
        for _ in range(20):  # until blocks of all sizes are there
            torch.ones(25_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(25_000_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    holders = [threading.Thread(target=lambda: (bytearray(10**5), time.sleep(1))) for _ in range(12)]
    for holder in holders:
        holder.start()
    thread = threading.Thread(target=retaining_memory(work) if sys.argv[1] == "retained" else work)
    thread.start()
    thread.join()
"""


def page_faults(how):
    command = [sys.executable, "-c", textwrap.dedent(FAULTS), how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@needs_glibc
def test_large_arrays_cause_no_page_faults_even_in_a_thread_with_an_arena_of_its_own():
    pages = 10 * 100_000_000 // 4096
    assert page_faults("plain") > pages / 2
    assert page_faults("retained") < pages / 50


@needs_glibc
def test_work_runs_in_the_main_arena_whatever_arena_the_caller_has():
    arenas = {}

    def call():
        arenas["caller"] = in_main_arena()
        arenas["work"] = retaining_memory(in_main_arena)()

    ready, hold = threading.Barrier(9), threading.Event()
    holders = [threading.Thread(target=lambda: (bytearray(10**6), ready.wait(), hold.wait())) for _ in range(8)]
    for holder in holders:
        holder.start()
    ready.wait()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    hold.set()
    assert arenas["work"]


@needs_glibc
@pytest.mark.skipif(not hasattr(allocator._glibc(), "mallinfo2"), reason="glibc before 2.33")
def test_memory_that_is_retained_is_known():
    code = """
        import torch
        from netsim.allocator import retained_bytes, retaining_memory
        keep = retaining_memory(lambda: torch.ones(25_000_000))
        tensor = keep()
        before = retained_bytes()
        del tensor
        print(retained_bytes() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    freed = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert 90_000_000 < freed < 110_000_000


def test_arguments_results_errors_and_context_pass_through(monkeypatch):
    monkeypatch.setattr(allocator, "in_main_arena", lambda: False)
    monkeypatch.setattr(allocator, "_retain", lambda: True)
    monkeypatch.setattr(allocator, "ATTEMPTS", 2)
    setting = ContextVar("setting", default="default")
    setting.set("the caller's")

    @retaining_memory
    def work(a, *, b):
        if b == 0:
            raise ZeroDivisionError("b must not be 0")
        return a / b, setting.get(), threading.current_thread() is threading.main_thread()

    assert work(6, b=3) == (2, "the caller's", False)
    with pytest.raises(ZeroDivisionError, match="b must not be 0"):
        work(6, b=0)
    assert work.__name__ == "work"


def test_work_stays_in_a_thread_of_the_main_arena():
    assert retaining_memory(threading.current_thread)() is threading.current_thread() or not in_main_arena()


@pytest.mark.parametrize("missing", [OSError("libc.so.6: cannot open shared object file"), AttributeError("mallopt")])
def test_nothing_is_done_without_glibc(missing, monkeypatch):
    def unavailable(name):
        raise missing

    monkeypatch.setattr(allocator.ctypes, "CDLL", unavailable)
    allocator._glibc.cache_clear()
    allocator._retain.cache_clear()
    try:
        assert in_main_arena()
        assert retaining_memory(threading.current_thread)() is threading.current_thread()
        release_memory()
        assert retained_bytes() == 0
    finally:
        monkeypatch.undo()
        allocator._glibc.cache_clear()
        allocator._retain.cache_clear()
