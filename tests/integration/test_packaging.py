"""What is installed is what was locked, and what is shipped is all there."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

import netsim
from support import release
from support.locks import LOCKS, PIN, canonical, lines, pins

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built without any network."""
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_holds_hashed_pins_and_nothing_else(lock):
    assert len(pins(lock)) > 3


def test_the_grammar_of_a_lock_refuses_what_a_lock_must_not_hold():
    digest = "--hash=sha256:" + "0" * 64
    assert PIN.fullmatch(f"a[b, c]==1.0 ; sys_platform == 'linux' {digest} {digest}")
    for line in (
        "a==1.0",
        f"a>=1.0 {digest}",
        f"a @ file:///a.whl {digest}",
        f"--option value {digest}",
        f"./a {digest}",
    ):
        assert not PIN.fullmatch(line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_has_one_version_of_a_package_for_every_python(lock):
    assert {name: versions for name, versions in pins(lock).items() if len(versions) > 1} == {}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]),
        ("requirements-cluster.lock", PROJECT["dependency-groups"]["cluster"]),
        ("requirements-dev.lock", PROJECT["dependency-groups"]["dev"]),
        ("requirements-pretrained.lock", PROJECT["dependency-groups"]["pretrained"]),
    ],
)
def test_locked_versions_lie_in_the_ranges_of_the_project(lock, wanted):
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        (version,) = locked[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version} is locked: run make lock"


@pytest.mark.parametrize(("lock", "later"), list(combinations(LOCKS[:3], 2)))
def test_locks_agree_where_they_overlap(lock, later):
    one, other = pins(lock), pins(later)
    overlap = one.keys() & other.keys()
    assert overlap
    assert {name: one[name] for name in overlap} == {name: other[name] for name in overlap}


def test_every_library_that_is_imported_is_declared():
    declared = {canonical(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    declared.add("distributed")  # as an extra of dask
    declared.add("dask-cuda")  # used where it is installed: it asks for a Dask of its own
    declared.add("ipython")  # used in a kernel, which has it
    declared |= {canonical(Requirement(line).name) for line in PROJECT["dependency-groups"]["cluster"]}
    trees = [ast.parse(path.read_text()) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    libraries = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - set(PACKAGES)
    assert {"torch", "yaml"} <= libraries
    distributions = packages_distributions()  # yaml is imported, PyYAML is declared
    undeclared = {name for name in libraries if declared.isdisjoint(map(canonical, distributions.get(name, [name])))}
    assert undeclared == set()


def test_development_tools_stay_out_of_the_lock_of_users():
    tools = {canonical(Requirement(tool).name) for tool in PROJECT["dependency-groups"]["dev"]}
    assert tools & pins("requirements.lock").keys() == set()


@pytest.mark.parametrize("lock", LOCKS[:2])
def test_every_pin_with_extras_has_a_plain_twin_for_old_pip(lock):
    requirements = {PIN.fullmatch(line)["requirement"] for line in lines(lock)}
    with_extras = {requirement for requirement in requirements if "[" in requirement}
    assert with_extras
    assert {re.sub(r"\[.*\]", "", requirement) for requirement in with_extras} <= requirements


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_cuda_is_locked_for_linux_and_absent_on_macos(python):
    version = {"python_version": python, "python_full_version": f"{python}.4"}
    cuda = {name for name in pins("requirements.lock") if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert len(cuda) > 10
    assert cuda <= pins("requirements.lock", LINUX | version).keys()
    macos = pins("requirements.lock", MACOS | version).keys()
    assert cuda & macos == set()
    assert {"torch", "torchvision", "prefect", "zarr"} <= macos


def test_the_pins_that_prefect_needs_but_does_not_declare_are_there():
    ranges = {
        requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["project"]["dependencies"])
    }
    assert not ranges["fastapi"].contains("0.151.0")  # the server does not start
    assert not ranges["sqlalchemy"].contains("2.1.0")  # cron schedules never create a run


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - shipped == set()
    folders = {path.rpartition("/")[0] for path in here if not path.endswith(".py")}
    assert {"netsim/images/data", "netsim/report/templates", "netsim/results", "deploy/sweeps"} <= folders


def test_the_wheel_holds_nothing_but_the_packages_and_its_own_record(wheel):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {*PACKAGES, f"netsim_cka-{PROJECT['project']['version']}.dist-info"}


@pytest.mark.parametrize("package", ["netsim", "tasks", "flows"])
def test_type_checkers_read_the_types_of_an_installed_package(wheel, package):
    assert f"{package}/py.typed" in zipfile.ZipFile(wheel).namelist()  # PEP 561


def test_the_version_of_an_import_is_that_of_the_distribution():
    assert netsim.__version__ == version("netsim-cka") == PROJECT["project"]["version"]


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", PROJECT["project"]["version"])
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_newest_section_of_the_changelog_is_this_version():
    released = re.findall(r"^## \[(\d[^]]*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert released[0] == (PROJECT["project"]["version"], citation["date-released"])


def test_hooks_run_the_locked_tools_and_download_nothing():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["language"] for hook in repository["hooks"]] == ["system"] * 3
    tools = [hook["entry"].split()[0] for hook in repository["hooks"]]
    assert tools == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def test_an_installed_package_finds_its_settings(wheel, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from importlib.resources import files; "
        "sys.stdout.write((files('deploy') / 'sweeps/demo.yaml').read_text())"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", code, str(wheel)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == (ROOT / "deploy/sweeps/demo.yaml").read_text()


def test_the_command_leads_to_a_function_that_exists():
    module, _, function = PROJECT["project"]["scripts"]["netsim"].partition(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    assert function in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def test_continuous_integration_runs_what_a_developer_runs():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"


def test_every_benchmark_can_be_imported():
    """No other test runs them, so that a renamed function would be noticed when the next figure is due."""
    names = sorted(f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("*.py"))
    assert len(names) > 10
    imports = "; ".join(f"import {name}" for name in names)
    result = subprocess.run([sys.executable, "-c", imports], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_make_refuses_an_old_python_and_says_which_fit(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo Python 3.9.18; exit; }\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    found = subprocess.run(["make", "demo", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert f"netsim needs Python 3.11 to 3.14; {old} is Python 3.9.18." in found.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_release_needs_notes_and_nothing_unreleased():
    section = "## [0.3.0] - 2026-11-30\n\n- A change.\n\n## [0.2.0] - 2026-11-28\n\n- An older one.\n"
    release.require_notes(section, "0.3.0")
    release.require_notes(f"## [Unreleased]\n\n{section}", "0.3.0")
    with pytest.raises(release.NotReadyError, match=r"must have a section \[0\.4\.0\] with notes"):
        release.require_notes(section, "0.4.0")
    with pytest.raises(release.NotReadyError, match=r"nothing under \[Unreleased\]; move it to \[0\.3\.0\]"):
        release.require_notes(f"## [Unreleased]\n\n- A later one.\n\n{section}", "0.3.0")
