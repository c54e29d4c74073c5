"""Requests side by side: object storage takes as long for the first byte of one answer as for those of many."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Requests of one call that are in flight at a time.
REQUESTS = 32


def concurrently(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = REQUESTS) -> list[Result]:
    """Call a function that waits for storage with each item, in threads. Return the results in order.

    Raises
    ------
    Exception
        The error of the first item, in order, that has one, as a loop would.

    Examples
    --------
    >>> concurrently(len, ["a", "bb"])
    [1, 2]
    """
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
