"""Commands in any locale, with closed streams, and with names that are not UTF-8 or look like markup."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.cli.streams import prepare_streams
from netsim.results.findings import headline
from netsim.results.results import load_results
from netsim.store.layout import report_path
from netsim.store.metadata import DrawMetadata
from support.servers import NETSIM
from support.sweeps import TINY, new_run, run_all, tiny

NOT_UTF8 = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale that cannot even encode Latin letters; Python would use UTF-8 in it if it were not told otherwise."""


def run_netsim(*arguments: str | bytes, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own; its output stays bytes."""
    return subprocess.run([*NETSIM, *arguments], env=os.environ | env, cwd=cwd, capture_output=True, check=False)


@pytest.mark.parametrize("env", [NOT_UTF8, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}])
def test_results_are_printed_in_any_locale_with_their_signs(finished, tmp_path, env):
    done = run_netsim("results", finished.url, cwd=tmp_path, **env)
    assert (done.returncode, done.stderr) == (0, b"")
    printed = " ".join(done.stdout.decode("latin-1").split())
    plain = headline(load_results(finished)).replace("−", "-")
    assert (plain if env.get("PYTHONIOENCODING") == "latin-1" else plain.replace("±", "+/-")) in printed


def test_a_sign_never_becomes_a_question_mark():
    prepare_streams()
    text = "natural − inverted: −0.09 ± 0.15, 28 × 28 …, caf\udce9, \u65e5"
    assert text.encode("ascii", "netsim") == b"natural - inverted: -0.09 +/- 0.15, 28 x 28 ..., caf?, ?"
    assert text.encode("latin-1", "netsim") == "natural - inverted: -0.09 ± 0.15, 28 × 28 ..., caf?, ?".encode(
        "latin-1"
    )


def test_a_settings_file_means_the_same_in_every_locale(tmp_path):
    source = "folder:" + "\u65e5\u672c/\u00e9t\u00e9"
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(TINY | {"images": {"source": source}}, allow_unicode=True), "utf-8"
    )
    code = "import sys; from netsim.settings import load_settings; print(ascii(load_settings(sys.argv[1])))"
    command = [NETSIM[0], "-c", code, "mine.yaml"]
    parsed = {
        subprocess.run(command, env=os.environ | env, cwd=tmp_path, capture_output=True, check=True).stdout
        for env in ({}, NOT_UTF8)
    }
    absolute = "folder:" + str(tmp_path / source.removeprefix("folder:"))
    assert len(parsed) == 1 and ascii(absolute).encode() in parsed.pop()


def test_files_have_the_same_names_in_every_locale(finished, tmp_path):
    """A store in a folder with Japanese letters, from a command line in UTF-8."""
    store = tmp_path / "\u65e5\u672c"
    shutil.copytree(finished.url, store)
    done = run_netsim("report", os.fsencode(store), "-o", "\u00e9t\u00e9".encode(), cwd=tmp_path, **NOT_UTF8)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "\u00e9t\u00e9" / "report.html").read_bytes().decode()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_whose_output_is_closed_does_its_work(finished, tmp_path, stream):
    number = {"stdout": 1, "stderr": 2}[stream]
    script = f'exec "$@" {number}>&-'
    command = ["sh", "-c", script, "sh", *NETSIM, "report", finished.url, "-o", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").read_bytes().rstrip().endswith(b"</html>")


def test_classes_and_images_with_names_that_are_not_utf8_go_through_a_whole_run(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in (b"caf\xe9", b"plain"):
            folder = os.fsencode(tmp_path / "photos" / split) + b"/" + name
            os.makedirs(folder)
            for number in range(20):
                pixels = Image.fromarray(rng.integers(256, size=(28, 28, 3), dtype=np.uint8))
                pixels.save(os.fsdecode(folder + b"/\xff%d.png" % number))
    settings = tiny(
        images={"source": f"folder:{tmp_path}/photos", "size": 32},
        networks=["torchvision:resnet18@none", "torchvision:shufflenet_v2_x0_5@none"],
        pairs={"count": 16, "shard_size": 4},
        inversion={"iterations": 1, "batch_size": 4},
    )
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run)
    assert DrawMetadata.of(run.record("draw", "pairs")).classes == [r"caf\udce9", "plain"]
    page = run.files.get(report_path(run.sweep.id, "report.html")).decode()
    assert r"caf\udce9" in page
    for command in (("status",), ("results", "--json"), ("verify",)):
        done = run_netsim(command[0], run.url, *command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("env", [{}, NOT_UTF8])
def test_a_place_or_a_settings_file_that_is_not_utf8_is_one_error(tmp_path, env):
    (tmp_path / "mine.yaml").write_bytes("networks: [a, \u00e9]".encode("latin-1"))
    for arguments, message in (
        (("run", "mine.yaml"), b"netsim: mine.yaml must be UTF-8 text, got "),
        (("status", b"runs/caf\xe9"), rb"netsim: --store must be valid UTF-8, got 'runs/caf\udce9'; rename it"),
    ):
        done = run_netsim(*arguments, cwd=tmp_path, **env)
        assert done.returncode in (1, 2) and done.stderr.startswith(message), done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", ["lr:100:x[eps=3]", "a[/b]:smile:", "[bold]<b>&amp;`*_|"])
def test_a_name_is_never_markup(finished, tmp_path, name):
    shutil.copytree(finished.url, tmp_path / name)
    for arguments in (("status", name), ("report", name, "-o", f"out{name}"), ("verify", name, "--sample", "0")):
        done = run_netsim(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if arguments[0] != "verify":
            assert name in done.stdout.decode()
    assert (tmp_path / f"out{name}" / "report.html").is_file()
    done = run_netsim("status", f"no{name}", cwd=tmp_path)
    assert done.stderr.decode().startswith(f"netsim: no run at {tmp_path}/no{name};") and done.returncode == 1


def test_json_of_results_has_no_letter_that_a_locale_may_lack(finished, tmp_path):
    done = run_netsim("results", finished.url, "--json", cwd=tmp_path, **NOT_UTF8)
    assert json.loads(done.stdout)["networks"] and done.stdout.isascii()
