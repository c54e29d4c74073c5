"""Enough inputs are drawn, and the same ones in every run."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from support import fuzz

KINDS = sorted(path.stem for path in Path(__file__).parent.glob("test_fuzz_*.py") if path.stem != Path(__file__).stem)


def test_at_least_five_hundred_inputs_are_drawn_and_each_kind_has_a_hundred():
    for kind in KINDS:
        import_module(f"integration.fuzz.{kind}")
    of_kind = {kind: sum(count for test, count in fuzz.counts.items() if f".{kind}." in test) for kind in KINDS}
    assert len(KINDS) == 7 and min(of_kind.values()) >= 100 and sum(of_kind.values()) >= 500, of_kind


def test_inputs_are_the_same_in_every_run_and_others_if_more_are_asked_for():
    """Whatever was imported before: Hypothesis would draw numbers and texts of imported modules, too."""
    code = (
        "import hashlib, sys; from hypothesis import strategies as st; from support import fuzz\n"
        "def test(value): drawn.update(repr(value).encode())\n"
        "drawn = hashlib.sha256()\n"
        "fuzz.inputs(50, value=st.lists(st.one_of(st.integers(), st.text(), st.floats())))(test)()\n"
        "print(drawn.hexdigest())"
    )

    def drawn(*imports: str, times: str = "1") -> str:
        command = [sys.executable, "-c", "".join(f"import {name}\n" for name in imports) + code]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NETSIM_FUZZ": times}
        with fuzz.new_folder() as folder:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert drawn() == drawn("netsim.settings", "netsim.store")
    assert drawn() != drawn(times="2")
