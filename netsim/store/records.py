"""Commit records: the proof that a unit is done, sealed by a hash."""

import json
import platform
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blake3 import blake3

import netsim
from netsim import DISTRIBUTION

SEAL = "seal"
"""The key of a hash over everything else in a document, so that a flipped byte never goes unnoticed."""

RECORD_FILE = re.compile(r"\d{5,}\.json")
"""Name of a record's file. Anything else in its folder, as the copy of a sync tool, proves nothing."""

PACKAGES = {
    "netsim": DISTRIBUTION,
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "zarr": "zarr",
}
"""Packages whose versions a number may depend on, by the names that records give them."""


@dataclass(frozen=True)
class Record:
    """The proof that a unit is done: what was written, from what, by what, and how long it took.

    Attributes
    ----------
    arrays
        Path -> BLAKE3 of the bytes of its values in this shard, little endian, in C order.
    files
        Path -> BLAKE3 of its bytes.
    facts
        Metadata of the stage, as JSON; `netsim.store.metadata` has their types.
    seconds
        Time that computing took, without waiting for a worker.
    committed
        UTC, ISO 8601.
    process
        `host:pid` of the worker.
    """

    stage: str
    name: str
    shard: int
    digest: str
    arrays: dict[str, str]
    files: dict[str, str]
    facts: dict[str, Any]
    seconds: float
    committed: str
    versions: dict[str, str] = field(default_factory=dict)
    process: str = ""

    @cached_property
    def content(self) -> str:
        """BLAKE3 over the hashes of all values that the record covers."""
        return blake3_hex(json.dumps([self.arrays, self.files], sort_keys=True).encode())


@cache
def versions() -> dict[str, str]:
    """Return the installed versions that a number may depend on besides the settings.

    Of netsim in a clone of its repository, the version has the revision: `0.3.0+g` and the hash of the commit, and
    `.dirty` if files differ from it.
    """
    installed = {name: version(package) for name, package in PACKAGES.items()}
    if commit := revision(Path(netsim.__file__).parents[1]):
        installed["netsim"] += f"+g{commit}"
    return installed | {"python": platform.python_version()}


def revision(folder: Path) -> str:
    """Return the git commit of a folder, followed by `.dirty` if files differ from it; "" unless it is a clone."""
    if not (folder / ".git").exists():  # a folder within a clone, as one of packages, is another project's
        return ""
    describe = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=.dirty"]
    try:
        return subprocess.run(describe, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a repository of another user
        return ""


def commit_path(stage: str, name: str, shard: int) -> str:
    """Return the path of a unit's commit record."""
    return f"commits/{stage}/{name}/{shard:05d}.json"


def lies_within(path: str) -> bool:
    """Return False for a path that leads out of the store: a record is read before it is trusted."""
    return not path.startswith("/") and ".." not in path.split("/")


def blake3_hex(content: bytes | memoryview) -> str:
    """Hash bytes."""
    return blake3(content).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Add a seal to a document."""
    return content | {SEAL: blake3_hex(json.dumps(content).encode())}


def sealed_line(content: dict[str, Any]) -> bytes:
    """Write a document on one line, its seal last."""
    line = json.dumps(content, allow_nan=False).encode()
    return line[:-1] + _end_of(line)


def parse_sealed_line(data: bytes) -> dict[str, Any]:
    """Return the document that `sealed_line` wrote, without its seal. Raises ValueError if a byte differs."""
    line = data[:-_END] + b"}"
    if data[-_END:] != _end_of(line):
        raise ValueError("the seal does not fit")
    document: dict[str, Any] = json.loads(line)
    return document


def _end_of(line: bytes) -> bytes:
    """Return what takes the place of a line's last brace: the seal over the line."""
    return f', "{SEAL}": "{blake3_hex(line)}"}}'.encode()


_END = len(_end_of(b""))


def is_sealed(content: dict[str, Any]) -> bool:
    """Return True if a document's seal fits its content."""
    return content == sealed({key: value for key, value in content.items() if key != SEAL})
