"""Is this checkout ready to be released? Builds the distributions, and uses the wheel as a stranger would.

`make release-check`, which is `python -m support.release`: a quarter of an hour, most of it for the new environment.

1. The checkout is committed, its version has a section in the changelog, and no other commit has its tag.
2. The wheel that is built from the source distribution is the one that is built from the checkout.
3. In an environment made from requirements.lock and the wheel alone, and in an empty folder, the demo runs, a second
   run finds nothing to do, and its results and report can be read.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

from support.locks import ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


class NotReadyError(Exception):
    """What must be mended before the release."""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it prints. Raises NotReadyError if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        printed = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise NotReadyError(f"{' '.join(map(str, command))} ended with exit code {done.returncode}:\n{printed}")
    return done.stdout


# ---- the checkout


def require_committed() -> None:
    """Check that nothing is left to commit, and that the tag of this version names this commit or none."""
    changed = run("git", "status", "--porcelain", cwd=ROOT).splitlines()
    if changed:
        raise NotReadyError(f"the checkout must be committed, got {len(changed)} changes, such as {changed[0].strip()}")
    head = run("git", "rev-parse", "HEAD", cwd=ROOT).strip()
    tag = f"v{VERSION}"
    if run("git", "tag", "--list", tag, cwd=ROOT).strip():
        tagged = run("git", "rev-parse", f"{tag}^{{commit}}", cwd=ROOT).strip()
        if tagged != head:
            raise NotReadyError(
                f"{tag} must name this commit or none, got {tagged[:9]}; raise version in pyproject.toml"
            )


def require_notes(changelog: str, version: str) -> None:
    """Check that the changelog has a section of the version, and nothing that belongs to a later one."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    notes = {section.partition("]")[0].removeprefix("["): section.partition("\n")[2].strip() for section in sections}
    if not notes.get(version):
        raise NotReadyError(f"CHANGELOG.md must have a section [{version}] with notes")
    if notes.get("Unreleased"):
        raise NotReadyError(f"CHANGELOG.md must have nothing under [Unreleased]; move it to [{version}]")


# ---- the distributions


def build(source: Path, output: Path, target: str) -> Path:
    """Build a wheel or a source distribution without a network, and return its path."""
    run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", output, cwd=source)
    (built,) = output.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def contents(wheel: Path) -> dict[str, str]:
    """Return the hash of every file in a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: hashlib.sha256(opened.read(name)).hexdigest() for name in opened.namelist()}


def build_all(folder: Path) -> Path:
    """Build both distributions, and check that one gives the other; return the wheel."""
    wheel = build(ROOT, folder / "dist", "wheel")
    source = build(ROOT, folder / "dist", "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    again = contents(build(unpacked, folder / "again", "wheel"))
    different = [name for name, digest in contents(wheel).items() if again.get(name) != digest]
    if different or len(again) != len(contents(wheel)):
        raise NotReadyError(f"the source distribution must build the same wheel; different: {different[:5]}")
    print(f"built {wheel.name} ({wheel.stat().st_size:,} bytes) and {source.name} ({source.stat().st_size:,} bytes)")
    return wheel


# ---- the installed wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install the locked packages and the wheel in a new environment; return its folder of programs."""
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock", cwd=folder)
    run(*pip, "--no-deps", wheel, cwd=folder)
    return programs


def use(programs: Path, folder: Path) -> None:
    """Use netsim as a stranger would, in a folder of its own that has nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PREFECT", "NETSIM"))}
    environment = kept | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PREFECT_HOME": str(folder / "home")}

    def netsim(*arguments: str) -> str:
        return run(programs / "netsim", *arguments, cwd=folder, env=environment)

    where = run(programs / "python", "-c", "import netsim; print(netsim.__file__)", cwd=folder, env=environment).strip()
    require(Path(where).is_relative_to(programs.parent), f"netsim must be imported from the wheel, got {where}")
    require(VERSION in netsim("--version"), f"netsim --version must be {VERSION}, got {netsim('--version')}")
    first = json.loads(netsim("demo", "--json"))
    require(netsim("demo", "--json") == json.dumps(first, indent=2) + "\n", "a second run of the demo must do nothing")
    left = json.loads(netsim("plan", "demo", "--quick", "--json"))["stages"]
    require(not any(stage["shards"] for stage in left), f"nothing must be left to compute, got {left}")
    netsim("verify", "runs/demo")
    netsim("report", "runs/demo", "-o", "report")
    require((folder / "report" / "report.html").stat().st_size > 100_000, "the report must be written")
    natural, inverted = (first[name]["mean_unbiased"]["value"] for name in ("natural", "inverted"))
    print(f"the demo of the wheel: natural {natural:.3f}, inverted {inverted:.3f}")


def require(holds: bool, message: str) -> None:
    if not holds:
        raise NotReadyError(message)


def main() -> None:
    """Check all of it; print what is wrong, and end with exit code 1."""
    try:
        require_committed()
        require_notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), VERSION)
        with tempfile.TemporaryDirectory(prefix="netsim-release-") as name:
            folder = Path(name)
            wheel = build_all(folder)
            programs = install(wheel, folder / "environment")
            (folder / "stranger").mkdir()
            use(programs, folder / "stranger")
    except NotReadyError as error:
        sys.exit(f"not ready: {error}")
    print(f"ready: tag it with `git tag -a v{VERSION} -m 'netsim {VERSION}'`")


if __name__ == "__main__":
    main()
