"""What the documentation tells to type works: examples in Python run, and so do commands that a small store answers.

All other commands of netsim are parsed by the command line itself, with all their options, and `NOT_RUN` says why they
are not run.
"""

import contextlib
import inspect
import io
import os
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import typer
import yaml
from safetensors.torch import save_file
from typer.main import get_command

import netsim
from flows.cli.main import app
from netsim.networks.weights import weights_to_bytes
from netsim.settings import locate, parse_settings
from netsim.store.run import Run
from support import grown
from support.documentation import FENCED, INDENTED, PAGES, ROOT, blocks, commands, inline_code, page_text, python_blocks
from support.servers import netsim_in_process
from support.sweeps import new_run, run_all

NOT_RUN = {
    r"^(\S+=\S+ )?(\.venv/bin/)?netsim (run|demo|add|extend|layers)\b": "a sweep in workers: tests/system run them",
    r"netsim measure \S+ ": "the same",
    r"netsim study|s3://": "72 networks, or object storage: tests/system/test_study.py, test_flow_object_storage.py",
    r"netsim convert": "downloads a checkpoint, or has a hash in place of ...: tests/unit/networks/test_convert.py",
    r"netsim plan ": "measures the speed of every network: tests/unit/planning, tests/system/test_cli.py",
}
"""Pattern of commands on a page, and the reason why they are not run."""

OTHERS = {
    "make": "targets exist: tests/integration/test_docs.py",
    "python": "modules exist: tests/integration/test_docs.py",
    "python3": "makes an environment: `make test` does",
    "pipx": "installs a tool",
    "pre-commit": "installs hooks",
    "prefect": "tests/system/test_deploy.py, test_site.py",
    "dask": "tests/system/test_flow_cluster.py, test_certificates.py",
    "kubectl": "requires a cluster: tests/system/test_deploy.py checks manifests",
    "docker": "requires Docker: tests/system/test_deploy.py checks the file",
    "git": "clones the repository",
    "cp": "the shell's own",
    "mkdir": "the shell's own",
    "cat": "the shell's own",
    "export": "the shell's own",
}
"""Other programs on the pages, and where what they do is tested, or why it is not."""


def documented(*programs: str) -> dict[str, list[str]]:
    """Map each line of code on the pages that has a command of these programs to its words."""
    code = [block for page in PAGES for block in blocks(page_text(page)) if block not in python_blocks(page_text(page))]
    used = [command for block in code for command in commands(block, *programs)]
    return {command.line: command.words for command in used if "[OPTIONS]" not in command.words}


# ---- commands


def test_commands_are_read_as_a_shell_reads_them():
    code = """A=. B=c .venv/bin/netsim plan "a b" --set x=1 \\
      -o d > e.json # netsim f
kubectl -n netsim get && netsim list | head
"""
    assert [command.words for command in commands(code, "netsim")] == [
        ["netsim", "plan", "a b", "--set", "x=1", "-o", "d"],
        ["netsim", "list"],
    ]
    assert commands("netsim's own words: cat > a <<'EOF'\nnetsim b\nEOF\n", "netsim") == []


def problem(words: list[str]) -> str:
    """Parse a command as the command line does, without running it; return what is wrong with it, or ""."""
    group = get_command(app)
    if words[1] not in group.commands and not words[1].startswith("-"):
        return f"no command {words[1]}"
    try:
        group.commands.get(words[1], group).make_context(
            words[1], words[2:] if words[1] in group.commands else words[1:]
        )
    except typer.Exit:  # --help, --version
        return ""
    except Exception as error:  # of the click that comes with typer, whose names are private
        return error.format_message()
    return ""


def test_every_command_on_a_page_is_parsed_with_its_options():
    lines = documented("netsim")
    assert {line: wrong for line, words in lines.items() if (wrong := problem(words))} == {}
    assert len(lines) > 60
    wrong = {"lst": "no command lst", "list --jsn": "No such option: --jsn", "extend a --pairs b": "Invalid value for"}
    assert all(problem(["netsim", *words.split()]).startswith(text) for words, text in wrong.items())


def test_commands_in_the_prose_have_options_that_exist():
    """They may leave out arguments: `netsim results --json`."""
    prose = [code for page in PAGES for code in inline_code(page_text(page))]
    used = [command for code in prose for command in commands(code, "netsim") if len(command.words) > 1]
    named = [command for command in used if re.fullmatch(r"[a-z]+", command.words[1])]
    wrong = {command.line: problem(command.words) for command in named}
    left_out = re.compile(r"Missing |Option '[a-z-]+' requires an argument")
    assert {line: text for line, text in wrong.items() if text and not left_out.match(text)} == {}
    assert len(wrong) > 60


def test_no_command_stands_between_the_lines_of_the_prose():
    """A line of code without its indentation is text to Markdown."""
    prose = [line for page in PAGES for line in INDENTED.sub("", FENCED.sub("", page_text(page))).splitlines()]
    programs = "|".join(["netsim [a-z]+", *OTHERS])
    assert [line for line in prose if re.match(rf"({programs}) .*(  # |--[a-z]|[A-Z_]=|runs/)", line)] == []


def test_every_program_on_a_page_is_known():
    lines = [line for page in PAGES for block in blocks(page_text(page)) for line in block.splitlines()]
    shell = [
        line for line in lines if re.match(r"(\$ )?(sudo|apt|apt-get|pip|sbatch|squeue|curl|wget|aws|helm)\b", line)
    ]
    assert shell == []
    assert {words[0] for words in documented(*OTHERS).values()} | {"git"} == OTHERS.keys()


# ---- a site that has what the pages name


def finish(store: str, settings: dict, *, label: str, only: Collection[str] = grown.WORK) -> None:
    """Compute a small run in this process, without its report."""
    run_all(new_run(store, parse_settings(locate(settings, os.getcwd())), label=label), only)


SMALL = {"pairs": {"count": 8, "shard_size": 4}, "inversion": {"iterations": 2, "batch_size": 4}}


def make_mine() -> None:
    """Make the run of the tutorial, on smaller photographs, with a seventh network and some of the paper's names."""
    import my_nets

    for split in ("train", "test"):
        grown.write_photographs(Path("photos", split))
    Path("checkpoints").mkdir()
    settings = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    settings |= SMALL | {"images": {"source": "folder:photos", "size": 8}}
    for network in settings["networks"]:
        module, file = network["reference"].removeprefix("python:my_nets:").split("@")
        torch.save(getattr(my_nets, module)().state_dict(), file)
    torch.save(my_nets.plain().state_dict(), "checkpoints/late.pt")
    settings["networks"] += [f"{name}={grown.colour(width)}" for width, name in enumerate(PAPER, 5)]
    settings["networks"].append("late=python:my_nets:plain@checkpoints/late.pt")
    Path("mine.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    finish("runs/mine", settings, label="mine", only=())


PAPER = ("resnet18", "vgg16_bn", "densenet161")
"""Names of networks of the paper, with which `results --compare jones2022` compares."""


def make_demo() -> None:
    """Make a run of small networks with the demo's names, in three sweeps."""
    networks = [f"{name}={grown.net(width)}" for width, name in enumerate(("vgg", "resnet18", "densenet"), 5)]
    settings = grown.settings(grown.write_images(Path("images.npz").resolve()), networks, 16)
    for label, count in {"before": 8, "after": 12, "demo": 16}.items():
        only = () if label == "demo" else grown.WORK
        finish("runs/demo", settings | {"pairs": {"count": count, "shard_size": 4}}, label=label, only=only)
    Path("runs/demo/weights").mkdir()
    densenet = netsim.load_network("small:densenet@none")
    Path("runs/demo/weights/densenet.safetensors").write_bytes(weights_to_bytes(densenet))


def make_two() -> None:
    """Make the growing run of the README, on random weights."""
    networks = [f"small:{name}@none" for name in ("resnet18", "vgg", "mobilenet")]
    finish("runs/two", SMALL | {"networks": networks}, label="two")


def make_lab() -> None:
    """Make three runs of the same networks: as they are, with fewer iterations, and from other seeds."""
    settings = grown.settings("npz:images.npz", [grown.net(5), grown.net(6), grown.net(7)], 16)
    finish("runs/lab", settings, label="lab")
    finish("runs/half", settings | {"inversion": {"iterations": 1, "batch_size": 4}}, label="half")
    finish("runs/again", settings | {"pairs": settings["pairs"] | {"seed_draw": 1}}, label="again")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with what the pages name: settings, networks, photographs, and small finished runs."""
    folder = tmp_path_factory.mktemp("site")
    with contextlib.chdir(folder), patch.object(sys, "path", [str(folder), *sys.path]):
        shutil.copytree(ROOT / "docs/tutorials/checkpoints", folder, dirs_exist_ok=True)
        with Path("my_nets.py").open("a", encoding="utf-8") as module:
            module.write("\n\nfrom support.grown import net8 as net\n")
        save_file(grown.net8().state_dict(), "w.safetensors")
        make_mine()
        make_demo()
        make_two()
        make_lab()
        shutil.copytree("runs/mine", "archive/mine")
    return folder


@pytest.fixture
def at_site(site, monkeypatch) -> Path:
    """The site as the working directory, whose modules can be imported."""
    monkeypatch.chdir(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT), str(ROOT / "tests")]))
    return site


def test_commands_that_a_small_store_answers_succeed(at_site, tmp_path):
    lines = documented("netsim")
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in lines)] == []
    failed = []
    names = {"STORE": "runs/demo", "PLACE": "runs", "/archive/mine": "archive/mine"}
    names |= {"runs/published": "runs/lab", "runs/fast": "runs/half", "128": "8"}
    once = {tuple(words): line for line, words in lines.items()}  # the same command has another comment elsewhere
    for words, line in once.items():
        if any(re.search(pattern, line) for pattern in NOT_RUN):
            continue
        folder = at_site
        if words[1] == "drop":  # takes away what others read
            folder = shutil.copytree(at_site, tmp_path / "site", dirs_exist_ok=True)
        with patch.object(sys, "stdin", io.StringIO("y\n")):
            done = netsim_in_process(*(names.get(word, word) for word in words[1:]), env=os.environ, cwd=folder)
        if done.returncode:
            failed.append(f"{line}: exit code {done.returncode}\n{done.stderr[-500:]}")
    assert "\n".join(failed) == ""


# ---- examples in Python


def test_examples_in_python_run(at_site):
    """A page may name what its reader has, such as two models. Functions without arguments are called."""
    torch.manual_seed(0)
    model, images = grown.classifier(5), torch.rand(8, 1, grown.SIDE, grown.SIDE)
    given = {"model": model, "model_a": model, "model_b": grown.classifier(6), "images": images, "labels": np.arange(8)}
    given |= {"seed_images": images[:4], "target_images": images[4:], "reps_a": np.eye(8), "reps_b": np.eye(8)}
    sweep = Run.open("runs/demo").sweep.id
    ran = 0
    for page in (page for page in PAGES if not page.endswith(".ipynb")):
        for example in python_blocks(page_text(page)):
            names = dict(given)
            exec(compile(example.replace("0123456789ab", sweep), page, "exec"), names)
            for name, value in names.items():
                if inspect.isfunction(value) and name not in given and not inspect.signature(value).parameters:
                    value()
            ran += 1
    assert ran >= 7
    assert Path("inverted.pdf").stat().st_size > 1000
