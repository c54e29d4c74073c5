"""Names of files and folders in image sets: what operating systems leave behind, what ends as an image, and splits.

Names of splits are those that Hugging Face's `datasets` knows (SPLIT_KEYWORDS in its data_files.py), and a few more.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from netsim.errors import DataError, on_one_line
from netsim.images.base import Split
from netsim.images.decoding import SUFFIXES

# Names of training data.
TRAIN = ("train", "training")

# Names of test data.
TEST = ("test", "testing", "tests")

# Names of validation data, which is used where there is no test data.
VALIDATION = ("val", "validation", "valid", "validate", "dev")

# Split -> groups of its names. Earlier groups are preferred; of one group, a set must have one name only.
SPLITS: dict[Split, tuple[tuple[str, ...], ...]] = {
    "train": (TRAIN,),
    "test": (TEST, VALIDATION, ("eval", "evaluation")),
}

# Files and folders that systems create besides those whose names begin with a dot, in lower case.
_CLUTTER = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin"),
    *("system volume information", "lost+found", "icon\r", "__pycache__"),
)

# Kinds of files that a message names before it only counts the rest.
_MAX_NAMED = 5


# ---- files


def is_clutter(path: str) -> bool:
    """Return True if a path or a folder in it was left by a system or a program: hidden, or a name like __MACOSX."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return any(part.startswith(".") or part.lower() in _CLUTTER for part in parts)


def is_image(path: str) -> bool:
    """Return True for a file that ends as an image does and is not clutter."""
    return path.lower().endswith(SUFFIXES) and not is_clutter(path)


def count_endings(paths: Iterable[str]) -> str:
    """List the endings of files with their numbers, the most frequent first, as in `.txt (3), .csv (1)`.

    Examples
    --------
    >>> count_endings(["a.txt", "b.TXT", "c.tar.gz", "README"])
    '.txt (2), .gz (1), no ending (1)'
    """
    counted = Counter(_ending(path) for path in paths).most_common()
    named = [f"{ending} ({count:,})" for ending, count in counted[:_MAX_NAMED]]
    more = sum(count for _, count in counted[_MAX_NAMED:])
    return ", ".join([*named, f"others ({more:,})"] if more else named)


def _ending(path: str) -> str:
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return f".{on_one_line(ending.lower())}" if dot else "no ending"


# ---- splits


def split_of(name: str) -> Split | None:
    """Return the split that a name stands for in any case, or None.

    Examples
    --------
    >>> split_of("Training"), split_of("dev"), split_of("cat")
    ('train', 'test', None)
    """
    matching = (split for split, groups in SPLITS.items() for group in groups if name.casefold() in group)
    return next(matching, None)


def split_in(name: str) -> str | None:
    """Return the first word of a file's name that stands for a split, as in `cifar-train-00000.tar`, or None."""
    return next((word for word in re.split(r"[-._]", name) if split_of(word)), None)


def resembles_split(name: str) -> bool:
    """Return True if a word in a name stands for a split, as in `seg_train`, `TestImages` and `train2017`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return any(split_of(word) or split_of(word.lower().removesuffix("set")) for word in words)


def choose_split(
    split: Split, names: Iterable[str], location: str, *, hint: str = "rename or remove all but one"
) -> str | None:
    """Return the preferred one of the names that stand for a split; None if there is none.

    Raises
    ------
    DataError
        If two names are equally preferred, as Test and test.
    """
    return choose_name(SPLITS[split], list(names), f"{location} must have one {split} split", hint=hint)


def choose_name(groups: Iterable[Sequence[str]], names: Sequence[str], requirement: str, *, hint: str) -> str | None:
    """Return the name that is in the first possible of `groups`; None if there is none. Raise DataError for several."""
    for group in groups:
        matching = [name for name in names if name in group or name.casefold() in group]
        if len(matching) > 1:
            raise DataError(f"{requirement}, got {' and '.join(matching)}; {hint}")
        if matching:
            return matching[0]
    return None


def spell_split(split: Split) -> str:
    """List the usual names of a split: the first of each group."""
    return " or ".join(group[0] for group in SPLITS[split])
