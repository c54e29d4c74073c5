"""Every error a user can cause, on one page.

All are `ValueError`s, so a notebook can catch them without importing this module. `exit_code` is what the command line
ends with: 1 when the run or the store is at fault, 2 when the command line or the settings are.
Each message says what came, what fits, and the way out, in one or two lines.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class NetsimError(ValueError):
    """What a user can cause and mend."""

    exit_code = 1


class SettingsError(NetsimError):
    """The command line or the settings cannot be understood, or ask for what does not exist."""

    exit_code = 2


class DataError(NetsimError):
    """Images that cannot be used: unreadable, not finite, too few, or all of one label."""


class NetworkError(NetsimError):
    """A network that cannot be used: weights that do not fit, no final linear layer, values that are not finite."""


class StoreError(NetsimError):
    """A store that cannot be used: other settings, another format version, damaged, not writable, full."""


class UnreachableError(StoreError):
    """A store that does not answer, after every try: it may answer later, so a task that met this is worth retrying."""


class RunError(NetsimError):
    """A run that could not finish: what was done is in the store, and the same command goes on from there."""


class TaskCancelled(BaseException):
    """Nobody waits for this work any more, says a `Run.pulse`. No Exception, so that nothing takes it for one."""


def printable(text: str) -> str:
    """What may come from a store or a server, for a terminal: lines, but nothing that a terminal obeys."""
    return "".join(sign if sign == "\n" or sign.isprintable() else ascii(sign)[1:-1] for sign in text)


MOST_NAMED = 20


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean "resnet18"?' where something close is known, else what is known: the tail of an error message."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    more = len(known) - MOST_NAMED
    return f"; known are {', '.join(known[:MOST_NAMED])}{f' and {more:,} more' if more > 0 else ''}"
