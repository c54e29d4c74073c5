"""Text of a command, whatever the locale: names of files and child processes in UTF-8, and output that never fails."""

import codecs
import io
import locale
import os
import sys

# Replacements of characters of our own sentences in a terminal that lacks them. A minus must not become a `?`.
REPLACEMENTS = {"−": "-", "–": "-", "±": "+/-", "×": "x", "…": "...", "→": "->", "≤": "<=", "≥": ">="}


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode, unless names of files are in UTF-8 already.

    Otherwise the same folder has other names of classes, so other results, in a locale such as en_US.ISO-8859-1.
    Output stays in the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1" or not sys.executable:
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{locale.getencoding()}:replace")
    os.environ["PYTHONUTF8"] = "1"  # workers inherit it
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare_streams() -> None:
    """Replace what the terminal cannot show, and drop what is written to a closed stream."""
    codecs.register_error("netsim", _replace)
    _reserve_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="netsim")


def _reserve_descriptors() -> None:
    """Open the descriptors of closed streams: a file that got one of them would receive what libraries print.

    Child processes inherit them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free one


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks, as a handler of `codecs`."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(REPLACEMENTS.get(char, "?") for char in error.object[error.start : error.end]), error.end
