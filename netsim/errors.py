"""Every error a user can cause, on one page.

All are `ValueError`s, so a notebook can catch them without importing this module. Each message says what was wrong with
which value, what would be valid, and the way out, in one or two lines.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Characters of another error's message that an error message repeats.
_LONGEST_LINE = 500

# Names that an error message lists before it only counts the rest.
_MAX_LISTED = 20


class NetsimError(ValueError):
    """Base class of all errors that a user can cause and fix.

    Attributes
    ----------
    exit_code
        Exit status of the command line: 1 if the run or the store is at fault, 2 if the command or the settings are.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class SettingsError(NetsimError):
    """Invalid command line or settings, or a name in them that does not exist."""

    exit_code = 2


class DataError(NetsimError):
    """Unusable images: unreadable, not finite, too few, or all with the same label."""


class NetworkError(NetsimError):
    """Unusable network: weights of another shape, no final linear layer, or outputs that are not finite."""


class StoreError(NetsimError):
    """Unusable store: other settings, another format version, damaged, not writable, or full."""


class UnfinishedError(StoreError):
    """Run that is not finished, of which results are asked."""


class UnreachableError(StoreError):
    """Store that did not answer after all retries. It may answer later, so a task that met this error is retried."""


class RunError(NetsimError):
    """Run that could not finish. Completed shards stay in the store; running the command again resumes."""


class TaskCancelled(BaseException):
    """Raised when the task was cancelled. A BaseException, so that `except Exception` does not swallow it."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut if it is long: some libraries quote all of a damaged file."""
    line = str(error).strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def printable(text: str) -> str:
    r"""Escape control characters and bytes that are not UTF-8, so that a terminal can print text and not execute it.

    Newlines are kept. Every message of a `NetsimError` passes through it: names in it may come from anywhere.

    Examples
    --------
    >>> printable("done\x1b[2J")
    'done\\x1b[2J'
    """
    return "".join(char if char == "\n" or char.isprintable() else ascii(char)[1:-1] for char in text)


def on_one_line(name: str) -> str:
    r"""Escape a name for a message like `printable`, newlines too.

    Examples
    --------
    >>> on_one_line("a\nb")
    'a\\nb'
    """
    return printable(name).replace("\n", "\\n")


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one is similar to, or None.

    Examples
    --------
    >>> closest("resnet8", ["resnet18", "vgg"])
    'resnet18'
    """
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message about an unknown name: a similar known name, or else all known names.

    Examples
    --------
    >>> nearest("resnet8", ["resnet18", "vgg"])
    "; did you mean 'resnet18'?"
    >>> nearest("alexnet", ["vgg", "resnet18"])
    '; known are resnet18, vgg'
    """
    known = sorted(known, key=_natural)
    if meant := closest(name, known):
        return f"; did you mean {meant!r}?"
    unlisted = len(known) - _MAX_LISTED
    return f"; known are {', '.join(known[:_MAX_LISTED])}{f' and {unlisted:,} more' if unlisted > 0 else ''}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts conv2 before conv10."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
