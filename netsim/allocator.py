"""Keep the memory of freed tensors in the process, so that large tensors cause no page faults.

glibc returns a large block to the system as soon as it is freed, and the system clears each page again when the next
tensor touches it: half of the CPU time of an inversion of photographs. Its thresholds can be raised, but only one of
its arenas can hold blocks of more than 64 MB, the main one; a thread that allocates from another maps each such block
anew (malloc/arena.c and malloc/malloc.c of glibc). So work with large tensors runs in a thread of the main arena.

Nothing is done where malloc is not glibc's: on other systems, with musl, and where another allocator is preloaded.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import cache, partial, wraps
from typing import ParamSpec, TypeVar

# Parameters of mallopt in malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

SETTINGS = {
    M_ARENA_MAX: 1,  # new threads share the main arena
    M_TRIM_THRESHOLD: -1,  # never shrink it
    M_MMAP_THRESHOLD: 1 << 30,  # take blocks up to this size from it, instead of mapping each
}

NON_MAIN_ARENA = 4
"""Flag in the size field in front of a block of glibc."""

ATTEMPTS = 64
"""Threads that are started until one is in the main arena: each may join the arena of a thread that ended."""

P = ParamSpec("P")
T = TypeVar("T")


class _MallInfo(ctypes.Structure):
    """The struct mallinfo2 of malloc.h, glibc 2.33 or later: ten sizes, of which the ninth is free memory."""

    _fields_ = (("_", 8 * ctypes.c_size_t), ("fordblks", ctypes.c_size_t), ("keepcost", ctypes.c_size_t))


def retaining_memory(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that allocates large tensors: what it frees stays in the process for the next ones.

    The function runs in a thread of the main arena: the caller's, if it is one, or else a new one with a copy of the
    caller's context variables. The settings of the allocator apply to the whole process, and remain.

    Examples
    --------
    >>> @retaining_memory
    ... def add(a, b):
    ...     return a + b
    >>> add(1, b=2)
    3
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(function, *args, **kwargs)
        return work() if not _retain() or in_main_arena() else _call_in_main_arena(work)

    return wrapper


def release_memory() -> None:
    """Return free memory to the system, after work that was decorated with `retaining_memory`."""
    if libc := _glibc():
        libc.malloc_trim(0)


def retained_bytes() -> int:
    """Return the memory of this process that is free for its next tensors; 0 where that is not known."""
    libc = _glibc()
    return libc.mallinfo2().fordblks if libc and hasattr(libc, "mallinfo2") else 0


def in_main_arena() -> bool:
    """Return True if this thread allocates from glibc's main arena, or glibc is not the allocator."""
    libc = _glibc()
    if libc is None:
        return True
    block = libc.malloc(100_000)  # larger than what a thread keeps for itself, and than what is mapped
    flags = ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value
    libc.free(block)
    return not flags & NON_MAIN_ARENA


def _call_in_main_arena(work: Callable[[], T]) -> T:
    """Call `work` in a new thread of the main arena; in any thread if there is none after `ATTEMPTS`."""
    with ExitStack() as threads:  # each lives until the work is done: arenas of ended threads are taken first
        for _ in range(ATTEMPTS):
            thread = threads.enter_context(ThreadPoolExecutor(1, thread_name_prefix="netsim"))
            if thread.submit(in_main_arena).result():
                break
        return thread.submit(copy_context().run, work).result()


@cache
def _retain() -> bool:
    """Set the allocator's parameters, once per process. Return False if glibc is not the allocator."""
    libc = _glibc()
    return libc is not None and all(libc.mallopt(parameter, value) for parameter, value in SETTINGS.items())


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return glibc if this process allocates by it."""
    try:
        libc, process = ctypes.CDLL("libc.so.6"), ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 (only glibc has it)
        if _address(libc.malloc) != _address(process.malloc):
            return None
    except (OSError, AttributeError, TypeError):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _MallInfo
    return libc


def _address(function: object) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
