"""How locks are read: every logical line of one is a hashed pin, and nothing else."""

import re
from collections import defaultdict
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-cluster.lock", "requirements-dev.lock", "requirements-pretrained.lock")

# The whole grammar of a lock: anything else (an address, an option, a path, a pin without hash) does not match.
PIN = re.compile(
    r"(?P<requirement>[a-z0-9-]+(\[[a-z0-9, -]+\])?==[^\s;]+)"
    r"( ; (?P<marker>[^\\]+?))?"
    r"(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)


def lines(lock: str) -> list[str]:
    """Logical lines of a lock: continuations joined, comments dropped, blanks single."""
    text = re.sub(r"^\s*#.*$", "", Path(ROOT, lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [" ".join(line.split()) for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]


def pins(lock: str, environment: dict[str, str] | None = None) -> dict[str, set[Version]]:
    """Locked versions by name of package, of all environments or of one."""
    found = defaultdict(set)
    for line in lines(lock):
        match = PIN.fullmatch(line)
        assert match, f"{lock}: not a hashed pin: {line[:120]}"
        if environment is None or match["marker"] is None or Marker(match["marker"]).evaluate(environment):
            requirement = Requirement(match["requirement"])
            (specifier,) = requirement.specifier
            found[requirement.name].add(Version(specifier.version))
    return dict(found)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
