"""Inputs that a user may pass, drawn by Hypothesis, and the two ways in which each may end.

An input works, and gives what an obvious twin gives; or it is refused, by a NetsimError of one or two lines that names
it. Nothing else: no other exception, no warnings, no file elsewhere.

In the suite, inputs are the same in every run. `make fuzz` draws others, and more of them: NETSIM_FUZZ=20 is 20 times
as many.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.strategies import SearchStrategy

from netsim.errors import NetsimError, on_one_line

TIMES = int(os.environ.get("NETSIM_FUZZ", "1"))

T = TypeVar("T")

counts: dict[str, int] = {}
"""Number of inputs of each test, for all that were imported."""

# Hypothesis also draws numbers and texts that occur in imported modules: inputs would depend on which tests ran before.
if TIMES == 1:
    providers._get_local_constants = lambda: providers._local_constants


def inputs(count: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with `count` inputs of these strategies."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        counts[f"{test.__module__}.{test.__name__}"] = count
        return settings(
            max_examples=count * TIMES,
            derandomize=TIMES == 1,
            deadline=None,
            database=None,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(test))

    return decorate


@st.composite
def mostly(draw: st.DrawFn, usual: SearchStrategy[T], odd: SearchStrategy[T], *, times: int = 9) -> T:
    """Draw what is usual so many times as often as what is odd: an input of many odd things is always refused."""
    return draw(draw(st.sampled_from([usual] * times + [odd])))


def outcome(call: Callable[[], T], *names: str, may_warn: str = "\0") -> T | NetsimError:
    """Return the result of a call, or the error that refuses its input, which must be named by one of `names`.

    Nothing may warn, but files of a library whose path contains `may_warn`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result: T | NetsimError = call()
        except NetsimError as error:
            result = error
    assert [str(warning.message) for warning in caught if may_warn not in warning.filename] == []
    if isinstance(result, NetsimError):
        require_good_message(result, *names)
    return result


def require_good_message(error: NetsimError, *names: str) -> None:
    """Check that an error has one or two short lines that a terminal can print, and names what it is about."""
    message = str(error)
    assert 1 <= len(message.splitlines()) <= 2, message
    assert len(message) < 1500 + 4 * max(map(len, names)), message
    assert "report it" not in message and "Traceback" not in message, message
    assert all(char == "\n" or char.isprintable() for char in message), ascii(message)
    spellings = [spelling for name in names for spelling in (name, on_one_line(name), repr(name)[1:-1])]
    assert any(spelling in message for spelling in spellings), f"none of {names} in {message!r}"


@contextmanager
def new_folder() -> Iterator[Path]:
    """Make an empty folder for one input, and remove it afterwards."""
    folder = Path(mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by path."""
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {os.fsdecode(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}
