"""Quarantined units keep their reason until they are released, and count as missing all the same."""

import pytest

from netsim.store.quarantine import quarantine, quarantined, release
from netsim.store.run import Run
from support.sweeps import new_run
from unit.store.definitions import SETTINGS, commit

UNIT = ("invert", "natural/vgg", 3)
NOTE = "aside/invert/natural/vgg/00003.json"


def test_releasing_one_stage_keeps_the_others_quarantined(run):
    for stage in ("invert", "measure"):
        quarantine(run, (stage, "natural/vgg", 3), {"error": "E"})
    release(run, "measure")
    assert list(quarantined(run)) == [("invert", "natural/vgg", 3)]
    release(run)
    assert quarantined(run) == {}


def test_a_reason_is_read_as_it_was_written(run):
    reason = {"error": "NetworkError: not finite", "worker": "tcp://a:1", "attempts": 3, "traceback": "line\n" * 9}
    quarantine(run, UNIT, reason)
    assert quarantined(Run.open(run.url)) == {UNIT: reason}


def test_the_last_reason_of_a_unit_replaces_the_one_before(run):
    for error in ("first", "second"):
        quarantine(run, UNIT, {"error": error})
    assert quarantined(run) == {UNIT: {"error": "second"}}


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"stage": "invert"}'])
def test_a_damaged_note_keeps_its_unit_quarantined_and_says_so(run, damaged):
    quarantine(run, UNIT, {"error": "E"})
    run.files.put(NOTE, damaged)
    assert quarantined(run) == {UNIT: {"error": "the note of its failure is damaged"}}


def test_a_quarantined_unit_is_not_done(run):
    quarantine(run, ("invert", "vgg", 0), {"error": "E"})
    assert run.done("invert") == {} and not run.is_done("invert", "vgg", 0)
    commit(run, 0, 1.0)
    assert list(run.done("invert")) == [("vgg", 0)] and list(quarantined(run)) == [("invert", "vgg", 0)]


def test_stray_files_among_the_notes_quarantine_nothing(tmp_path):
    run = new_run(str(tmp_path), SETTINGS)
    for stray in ("invert/vgg/00001 (copy).json", "invert/vgg/.DS_Store", "invert/00001.json", "x.json"):
        run.files.put(f"aside/{stray}", b'{"error": "E"}')
    assert quarantined(run) == {}
