"""Commit records: the proof that a unit is done, sealed by a hash."""

import json
import platform
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

from blake3 import blake3


@dataclass(frozen=True)
class Record:
    """The proof that a shard is done: what was written, from what, by what, and how long it took."""

    stage: str
    name: str
    shard: int
    digest: str
    arrays: dict[str, str]  # path -> BLAKE3 of the bytes of its values in this shard, little endian, in C order
    files: dict[str, str]  # path -> BLAKE3 of its bytes
    facts: dict[str, Any]
    seconds: float
    committed: str  # UTC, ISO 8601
    versions: dict[str, str] = field(default_factory=dict)
    process: str = ""  # host:pid

    @cached_property
    def content(self) -> str:
        """BLAKE3 over the hashes of all values that it covers."""
        return blake3_hex(json.dumps([self.arrays, self.files], sort_keys=True).encode())


@cache
def versions() -> dict[str, str]:
    """What a number may depend on besides the settings."""
    packages = {
        "netsim": "netsim-cka",
        "torch": "torch",
        "torchvision": "torchvision",
        "numpy": "numpy",
        "zarr": "zarr",
    }
    return {name: version(package) for name, package in packages.items()} | {"python": platform.python_version()}


RECORD_FILE = re.compile(r"\d{5,}\.json")


ASIDE_FILE = re.compile(rf"[^/]+/.+/{RECORD_FILE.pattern}")


def commit_path(stage: str, name: str, shard: int) -> str:
    return f"commits/{stage}/{name}/{shard:05d}.json"


def aside_path(stage: str, name: str, shard: int) -> str:
    return f"aside/{stage}/{name}/{shard:05d}.json"


def lies_within(path: str) -> bool:
    """A record is read before it is trusted: it must not lead out of the store."""
    return not path.startswith("/") and ".." not in path.split("/")


def unit_of(path: str) -> tuple[str, str, int]:
    """aside/invert/vgg/00003.json -> invert, vgg, 3"""
    _, stage, *name, shard = path.removesuffix(".json").split("/")
    return stage, "/".join(name), int(shard)


def parse_aside(data: bytes) -> dict[str, Any]:
    """Why a shard was set aside. It proves nothing, so a damaged one is said and no more."""
    try:
        why = json.loads(data)
        return why | {"error": str(why["error"])}
    except (ValueError, TypeError, KeyError):
        return {"error": "what was kept of it is damaged"}


def blake3_hex(content: bytes | memoryview) -> str:
    return blake3(content).hexdigest()


SEAL = "seal"
"""The key of a hash over everything else in a document, so that no flipped byte of it goes unseen."""


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """A document with its seal."""
    return content | {SEAL: blake3_hex(json.dumps(content).encode())}


def is_sealed(content: dict[str, Any]) -> bool:
    return content == sealed({key: value for key, value in content.items() if key != SEAL})
