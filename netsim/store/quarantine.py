"""Quarantined units: those that failed every attempt, with the reason, until the next run tries them again.

A note proves nothing: a quarantined unit counts as missing all the same. Its path is
`aside/<stage>/<name>/<shard>.json`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from netsim.store.records import RECORD_FILE
from netsim.store.run import Run
from netsim.store.stages import Unit

FOLDER = "aside"

NOTE = re.compile(rf"[^/]+/.+/{RECORD_FILE.pattern}")
"""Path of a note below the folder."""


def quarantine(run: Run, unit: Unit, reason: Mapping[str, Any]) -> None:
    """Note why a unit cannot be computed."""
    stage, name, shard = unit
    run.files.put(f"{FOLDER}/{stage}/{name}/{shard:05d}.json", json.dumps(dict(reason), indent=2).encode())


def quarantined(run: Run) -> dict[Unit, dict[str, Any]]:
    """Map each quarantined unit to its reason, which has at least the key `error`."""
    paths = sorted(path for path in run.files.modification_times(FOLDER) if NOTE.fullmatch(path))
    notes = run.files.get_all(f"{FOLDER}/{path}" for path in paths)
    return {_unit_of(path): _parse(note) for path, note in notes.items()}


def release(run: Run, stage: str = "") -> None:
    """Forget what is quarantined, in one stage or in all: it is to be tried again."""
    folder = f"{FOLDER}/{stage}".rstrip("/")
    for path in run.files.modification_times(folder):
        run.files.remove(f"{folder}/{path}")


def _unit_of(path: str) -> Unit:
    """Parse a path: `aside/invert/vgg/00003.json` -> `invert`, `vgg`, 3."""
    _, stage, *name, shard = path.removesuffix(".json").split("/")
    return stage, "/".join(name), int(shard)


def _parse(note: bytes) -> dict[str, Any]:
    """Parse a note; a damaged one is reported as such."""
    try:
        reason = json.loads(note)
        return reason | {"error": str(reason["error"])}
    except (ValueError, TypeError, KeyError):
        return {"error": "the note of its failure is damaged"}
