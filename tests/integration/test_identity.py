"""The identity campaign: no stored value is taken for that of something else, and none is computed without need."""

import shutil
import sys
from pathlib import Path

import pytest

from netsim.errors import NetsimError
from netsim.results.as_json import to_json
from netsim.results.results import load_results
from netsim.settings import parse_settings
from netsim.stages import inputs
from netsim.store.run import Run
from support.growth import CAMPAIGN, Change, base, table
from support.sweeps import new_run, run_all, run_looks

ROOT = Path(__file__).parents[2]


def forget() -> None:
    """Forget what this process has read, as a new command has read nothing."""
    for cached in (inputs.listed_images, inputs._readable, inputs._hash, inputs.listed_pictures):
        cached.cache_clear()
    sys.modules.pop("campaign_nets", None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A folder with a finished sweep in `run`, and all that it was made of in `lab`."""
    folder = tmp_path_factory.mktemp("campaign")
    settings = base(folder / "lab")
    sys.path.insert(0, str(folder / "lab"))
    forget()
    run = new_run(str(folder / "run"), parse_settings(settings))
    fresh = {"check": 0, "train": 3, "draw": 4, "invert": 12, "embed": 20, "aggregate": 6, "control": 3, "report": 1}
    assert run_all(run) == fresh
    sys.path.remove(str(folder / "lab"))
    return folder


@pytest.mark.parametrize("change", CAMPAIGN, ids=lambda change: change.name)
def test_a_change_computes_what_its_label_says_and_nothing_else(change: Change, lab, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "lab")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    settings = base(tmp_path / "lab")
    shutil.copytree(lab / "run", tmp_path / "run")
    before = to_json(load_results(Run.open(tmp_path / "run")))
    changed = change.apply(tmp_path / "lab", settings) or settings
    forget()
    if isinstance(change.effect, str):
        sweeps = sorted(path.name for path in (tmp_path / "run" / "sweeps").iterdir())
        with pytest.raises(NetsimError, match=change.effect):
            new_run(str(tmp_path / "run"), parse_settings(changed))
        assert sorted(path.name for path in (tmp_path / "run" / "sweeps").iterdir()) == sweeps
        return
    run = new_run(str(tmp_path / "run"), parse_settings(changed), label="changed")
    run, computed = run_looks(run) if run.settings.pairs.until else (run, run_all(run))
    assert {stage: count for stage, count in computed.items() if count} == change.effect
    load_results(run)
    earlier = to_json(load_results(Run.open(tmp_path / "run", "tiny" if change.effect else None)))
    assert {key for key in before if before[key] != earlier[key]} <= {"provenance"}


def test_the_campaign_is_as_large_as_it_claims_and_its_table_is_in_the_docs():
    assert len(CAMPAIGN) >= 50 and len({change.name for change in CAMPAIGN}) == len(CAMPAIGN)
    page = (ROOT / "docs/reference/identity.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in page, "run `python -m support.growth` in tests/ and put its table on the page"
