"""Any damage to a stored object is found, named by its shard, and repaired by the next run with the same bits."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from netsim.errors import NetworkError, StoreError
from netsim.results.results import load_results
from netsim.stages import inputs
from netsim.store import stages
from netsim.store.run import Run
from netsim.store.status import status
from netsim.verify import Fault, committed, verify
from support.sweeps import new_run, run_all, tiny


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


HARMS = {"flip": flip, "truncate": lambda path: path.write_bytes(b""), "delete": Path.unlink}
OBJECTS = {
    "inverted/vgg/image/c/1/0/0/0": ("invert", "vgg", 1),
    "inverted/resnet18/losses/c/2/0": ("invert", "resnet18", 2),
    "representations/natural/vgg/c/3/0": ("embed", "natural", 3),
    "images/target/c/0/0/0/0": ("draw", "pairs", 0),
    "weights/vgg.safetensors": ("train", "vgg", 0),
    "similarity/inverted/vgg/*/moments/c/0/0/0": ("aggregate", "inverted/vgg", 0),
    "controls/inverted/vgg/*/predicted/c/0/0/0": ("control", "inverted/vgg", 0),
    "results/*/cka/c/0/0/0": ("report", "*", 0),
    "report/*/natural.csv": ("report", "*", 0),
    "commits/invert/vgg/00002.json": ("invert", "vgg", 2),
}
DOCUMENTS = (
    "inverted/vgg/image/zarr.json",
    "inverted/vgg/zarr.json",
    "inverted/vgg/iteration/c/0",
    "results/*/observer/c/0",
)


def at(run: Run, pattern: str) -> Path:
    """Find the file of a run that a pattern names."""
    (path,) = Path(run.url).glob(pattern)
    return path


def goal(unit: tuple[str, str, int | None]) -> tuple[str, str, int | None]:
    """Name what a unit is for: without its cohort, and for the report on any sweep."""
    stage, name, shard = unit
    if stage in ("embed", "aggregate", "control"):
        name = name.rpartition("/")[0]
    return stage, "*" if stage == "report" else name, shard


def goals(faults: list[Fault]) -> set[tuple[str, str, int | None]]:
    return {goal((fault.stage, fault.name, fault.shard)) for fault in faults}


def done(run: Run) -> set[tuple[str, str, int]]:
    return {goal(unit) for unit in committed(run)}


def test_a_finished_run_is_as_it_was_committed(run):
    assert verify(run) == []
    names = {stage for stage, _, _ in committed(run)}
    assert names == {"train", "draw", "invert", "embed", "aggregate", "control", "report"}
    assert len(committed(run)) == 3 + 4 + 12 + 20 + 6 + 3 + 1


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("path", OBJECTS)
def test_harm_to_any_object_is_found_and_named(run, path, harm):
    HARMS[harm](at(run, path))
    named = goals(verify(run, sample=0))
    gone = path.startswith("commits/") and harm == "delete"  # then the shard is simply missing
    assert named == (set() if gone else {OBJECTS[path]})
    assert (OBJECTS[path] in done(run)) != gone


def test_the_state_of_a_run_of_many_shards_is_the_same_as_of_few(run, monkeypatch):
    """There, records are listed name by name."""
    for shard in (0, 3):
        run.forget("invert", "vgg", shard)
    before, missing = status(run), stages.INVERT.missing(run)
    monkeypatch.setattr(stages, "MANY_RECORDS", 1)
    assert status(run) == before and stages.INVERT.missing(run) == missing == [("vgg", 0), ("vgg", 3)]
    assert [stage.done for stage in before] == [3, 4, 10, 20, 6, 3, 1]


@pytest.mark.parametrize("record", ["train/vgg/00000", "draw/pairs/00002"])
def test_what_the_sample_of_losses_needs_may_be_missing(run, record):
    (Path(run.url) / f"commits/{record}.json").unlink()
    assert verify(run) == []


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("path", DOCUMENTS)
def test_harm_to_a_document_is_found_and_mended_without_computing_anything(run, path, harm):
    harmed = at(run, path)
    HARMS[harm](harmed)
    assert [(f.stage, f.name, f.shard) for f in verify(run)] == [
        ("document", harmed.relative_to(run.url).as_posix(), None)
    ]
    verify(run, repair=True)
    assert verify(run) == [] and len(committed(run)) == 49


def test_a_store_whose_sweeps_differ_in_networks_and_pairs_has_no_faults(run):
    """Arrays of networks that the longer sweep lacks are as long as their shards, not as that sweep."""
    networks = ["small:vgg", "other=small:mobilenet@none"]
    longer = new_run(run.url, tiny(networks=networks, pairs={"count": 48, "shard_size": 8}), label="longer")
    run_all(longer, only=("train", "draw", "invert", "embed", "aggregate", "control"))
    for sweep in (run, longer):
        assert verify(Run.open(run.url, sweep.sweep.id), sample=0) == []


def test_an_array_with_fewer_pairs_than_shards_that_are_done_is_found_and_mended(run):
    path = "representations/inverted/vgg/resnet18/zarr.json"
    document = json.loads(run.files.get(path))
    run.files.put(path, json.dumps(document | {"shape": [24, *document["shape"][1:]]}).encode())
    assert [str(fault) for fault in verify(run, sample=0, repair=True)] == [f"document {path}: it has too few pairs"]
    assert verify(run, sample=0) == [] and json.loads(run.files.get(path)) == document


def test_what_is_removed_is_computed_again_with_the_same_bits(run, finished):
    for path in OBJECTS:
        flip(at(run, path))
    faults = verify(run, repair=True)
    assert goals(faults) == set(OBJECTS.values())
    assert done(run).isdisjoint(OBJECTS.values())
    run_all(run)
    assert verify(run) == []
    moments = at(run, "similarity/inverted/vgg/*/moments").relative_to(run.url).as_posix()
    for path in ("inverted/vgg/image", "representations/natural/vgg", moments):
        np.testing.assert_array_equal(run.array(path)[...], finished.array(path)[...])


def test_a_damaged_record_is_named(run):
    (Path(run.url) / "commits/invert/vgg/00002.json").write_text("{")
    [fault] = verify(run, sample=0)
    assert str(fault).startswith("invert vgg 2: the commit record commits/invert/vgg/00002.json in ")


def recommit(run: Run, unit: tuple[str, str, int], *, facts: dict[str, Any], change: float = 0) -> None:
    """Make a shard done again, by a record and values that fit each other."""
    record = run.record(*unit)
    arrays = {path: run.read(record, path).copy() for path in record.arrays}
    for values in arrays.values():
        values.flat[0] += change
    files = {path: run.read_file(record, path) for path in record.files}
    run.forget(*unit)
    run.commit(*unit, arrays=arrays, files=files, facts=record.facts | facts, seconds=1)


OF_VGG_2 = {
    ("embed", "inverted/vgg", 2),
    ("aggregate", "inverted/vgg", 0),
    ("control", "inverted/vgg", 0),
    ("report", "*", 0),
}


def test_what_was_computed_from_other_values_is_found_and_not_shown(run):
    """A repaired shard that came out otherwise, as on a GPU: every checksum fits, and the matrix is of another set."""
    recommit(run, ("invert", "vgg", 2), facts={}, change=1)
    faults = verify(run, sample=0)
    assert goals(faults) == OF_VGG_2
    assert [fault.what for fault in faults] == [
        "it was computed from other values than are stored",
        *["it was computed from a shard that is at fault"] * 3,
    ]
    with pytest.raises(
        StoreError, match=r"embed inverted/vgg/\w+ shard 2 in .* was computed from other values .*--repair"
    ):
        load_results(run)
    verify(run, sample=0, repair=True)
    run_all(run)
    assert verify(run, sample=0) == []
    load_results(run)


def test_what_is_left_of_other_weights_goes_in_one_repair(run):
    recommit(run, ("train", "vgg", 0), facts={"weights_hash": "of another training"})
    faults = verify(run, sample=0)
    rows = {f"{kind}/{name}" for kind in ("natural", "inverted") for name in run.settings.names}
    looks = {
        ("embed", of, shard)
        for of in ("natural", "seed", *(row for row in rows if "inverted" in row))
        for shard in range(4)
    }
    inversions = {("invert", "vgg", shard) for shard in range(4)}
    compared = {("aggregate", row, 0) for row in rows} | {("report", "*", 0)}
    compared |= {("control", row, 0) for row in rows if "inverted" in row}
    assert goals(faults) == inversions | looks | compared


def test_records_of_a_netsim_that_did_not_say_what_they_were_made_from_are_as_good_as_ever(run):
    for unit in (unit for unit in committed(run) if unit[0] not in ("train", "draw")):
        recommit(run, unit, facts={"made_from": None})
    assert verify(run) == []


LOSS_DIFFERS = (
    r"^the stored loss of pair \d+ is \d\.\d{4}, recomputed \d\.\d{4}: the network \w+ has changed "
    r"since; restore its code, or use another --store$"
)


def test_a_network_that_computes_otherwise_is_found_though_every_checksum_fits(run, monkeypatch):
    """As after a change of its code that no hash of weights sees. To compute one shard again would hide it."""
    represent = inputs.represent
    monkeypatch.setattr(inputs, "represent", lambda network, images: represent(network, images).sqrt())
    faults = verify(run, repair=True)
    assert {(f.stage, f.name, f.shard) for f in faults} == {("invert", name, 2) for name in run.settings.names}
    assert faults[0].what.startswith("the stored loss of pair ")
    assert all(re.search(LOSS_DIFFERS, fault.what) for fault in faults)
    assert verify(run, sample=0) == [] and len(committed(run)) == 49


def test_what_is_damaged_is_named_though_no_network_can_be_looked_at(run, monkeypatch):
    def unavailable(*_: Any) -> Any:
        raise NetworkError("weights can't be downloaded")

    flip(at(run, "report/*/natural.csv"))
    monkeypatch.setattr(inputs, "network", unavailable)
    faults = verify(run, repair=True)
    assert [str(fault) for fault in faults[1:]] == [
        f"invert {name}: no loss could be recomputed: weights can't be downloaded" for name in sorted(run.sweep.names)
    ]
    assert ("report", "*", 0) not in done(run)


def test_the_command_says_what_is_off_and_how_to_mend_it(run):
    fine = CliRunner().invoke(app, ["verify", run.url])
    assert fine.exit_code == 0 and "49 shards verified, no faults" in fine.stdout
    flip(Path(run.url) / "inverted/vgg/image/c/1/0/0/0")
    damaged = CliRunner().invoke(app, ["verify", run.url, "--sample", "0"])
    assert damaged.exit_code == 1 and "invert vgg 1: inverted/vgg/image, shard 1, in " in damaged.stderr
    assert run.is_done("invert", "vgg", 1)
    repaired = CliRunner().invoke(app, ["verify", run.url, "--repair"])
    assert repaired.exit_code == 1 and "1 of 49 shards removed; run `netsim run --store " in repaired.stderr
    assert not run.is_done("invert", "vgg", 1)
    assert json.loads(run.files.get("zarr.json"))["attributes"]["netsim"]["digest"] == run.digest


def test_verifying_checksums_imports_no_torch(run):
    code = f"""
import sys
from netsim.store.run import Run
from netsim.verify import verify
assert verify(Run.open({run.url!r}), sample=0) == []
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
