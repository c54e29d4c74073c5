"""Is the environment what the locks say, and is anything known against what they hold?

python -m support.audit                  fails too when nobody can be asked
python -m support.audit --if-answered    says so in one line instead: what is away must not fail everybody's checks

Asked are pip-audit's services, for known vulnerabilities, and the package index that pip is set up for, for releases
that were withdrawn (yanked). PIP_AUDIT_VULNERABILITY_SERVICE and PIP_AUDIT_OSV_URL choose another service.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions

from packaging.markers import default_environment
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from support.locks import LOCKS, canonical, lines, pins

ALLOWED: dict[str, str] = {}
"""Vulnerability, or `package version` of a withdrawn release -> why it is locked all the same."""

SERVICES = ("pypi", "osv")
"""pip-audit's, in the order in which they are asked until one answers."""


class NoAnswerError(Exception):
    """From outside: why."""


# ---- what can be told here


def differences(locks: Sequence[str] = LOCKS) -> list[str]:
    """Where the environment is not what the locks say of it. Fails for a lock that is not hashed pins alone."""
    here = dict(default_environment())
    locked = {name: version for lock in locks for name, (version,) in pins(lock, here).items()}
    installed = {canonical(found.name): Version(found.version) for found in distributions()}
    return [
        f"{name} {version} is locked, and {installed.get(name, 'none')} is installed"
        for name, version in sorted(locked.items())
        if installed.get(name) != version
    ]


# ---- vulnerabilities


def vulnerabilities(locks: Sequence[str] = LOCKS) -> dict[str, str]:
    """Id -> package, version, and where it is mended. Raises NoAnswerError."""
    chosen = os.environ.get("PIP_AUDIT_VULNERABILITY_SERVICE")
    wanted = sorted(
        {line for lock in locks for line in lines(lock) if "[" not in line.split("==")[0]}
    )  # its twin has none
    whys = []
    for service in [chosen] if chosen else SERVICES:
        try:
            _asked(service, wanted[:1])  # a mirror of packages may know nothing of vulnerabilities
            return _asked(service, wanted)
        except NoAnswerError as why:
            whys.append(f"{service}: {why}")
    raise NoAnswerError("; ".join(whys))


def _asked(service: str, wanted: Sequence[str]) -> dict[str, str]:
    """What pip-audit says of these pins."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.write("\n".join(wanted) + "\n")
        file.flush()
        options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
        command = [sys.executable, "-m", "pip_audit", *options, "--vulnerability-service", service]
        told = subprocess.run([*command, "--requirement", file.name], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(told.stdout)["dependencies"]
    except ValueError:
        reason = told.stderr.strip().rpartition("\n")[2]
        raise NoAnswerError(reason.partition(" (Caused")[0][:200]) from None
    unknown = [package["name"] for package in packages if "vulns" not in package]
    if len(unknown) == len(packages):
        raise NoAnswerError(f"it knows nothing of {', '.join(unknown[:3]) or 'anything'}")
    if unknown:
        print(f"audit: {service} knows nothing of {', '.join(unknown)}")
    return {
        found[
            "id"
        ]: f"{package['name']} {package['version']}, mended in {', '.join(found['fix_versions']) or 'nothing'}"
        for package in packages
        for found in package.get("vulns", ())
    }


# ---- releases that were withdrawn


def yanked(locks: Sequence[str] = LOCKS) -> dict[str, str]:
    """Locked release that was withdrawn from the index -> the reason. Raises NoAnswerError.

    Asked in pip's own session, so as it is set up, certificates and keys too; pip is locked, for it has no public way.
    """
    from pip._internal.commands import create_command
    from pip._internal.exceptions import PipError

    locked = {name: version for lock in locks for name, (version,) in pins(lock).items()}
    command = create_command("index")
    options, _ = command.parse_args(["versions", "any"])
    with command.main_context(), command._build_session(options, retries=1, timeout=15) as session:

        def look(name: str) -> list[str]:
            answer = session.get(f"{options.index_url.rstrip('/')}/{name}/", headers={"Accept": JSON})
            if answer.status_code == NOT_FOUND:  # it comes from elsewhere
                return []
            answer.raise_for_status()
            withdrawn = [file for file in answer.json()["files"] if file.get("yanked")]
            return [str(file["yanked"]) for file in withdrawn if _version(file["filename"]) == locked[name]]

        pool = ThreadPoolExecutor(8)
        try:
            reasons = dict(zip(locked, pool.map(look, locked), strict=True))
        except (PipError, OSError, ValueError) as error:  # requests raises OSErrors, and pages may not be JSON
            raise NoAnswerError(f"the package index: {type(error).__name__}") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return {f"{name} {locked[name]}": f"withdrawn, {why[0]}" for name, why in reasons.items() if why}


NOT_FOUND = 404
JSON = "application/vnd.pypi.simple.v1+json"


def _version(filename: str) -> Version | None:
    """Of a wheel or a source distribution; None for what is neither, as older indexes have."""
    try:
        return parse_wheel_filename(filename)[1] if filename.endswith(".whl") else parse_sdist_filename(filename)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None


# ---- both


def faults(locks: Sequence[str] = LOCKS, *, must_answer: bool) -> Iterator[str]:
    yield from differences(locks)
    found: dict[str, str] = {}
    answered = True
    for what, ask in (("vulnerabilities", vulnerabilities), ("withdrawn releases", yanked)):
        try:
            found |= ask(locks)
        except NoAnswerError as error:
            answered = False
            if must_answer:
                yield f"nobody tells of {what} ({error})"
            else:
                print(f"audit: nobody tells of {what} ({error})")
    yield from (f"{name}: {why}" for name, why in found.items() if name not in ALLOWED)
    if answered:
        yield from (f"{name} is not reported any more: take it out of ALLOWED" for name in ALLOWED.keys() - found)


if __name__ == "__main__":
    wrong = list(faults(must_answer="--if-answered" not in sys.argv[1:]))
    print("\n".join(f"audit: {fault}" for fault in wrong) or "audit: the environment is what is locked")
    sys.exit(bool(wrong))
