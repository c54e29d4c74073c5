"""Quarantined units keep their reason until they are released."""

from netsim.store.quarantine import quarantine, quarantined, release


def test_releasing_one_stage_keeps_the_others_quarantined(run):
    for stage in ("invert", "measure"):
        quarantine(run, (stage, "natural/vgg", 3), {"error": "E"})
    release(run, "measure")
    assert list(quarantined(run)) == [("invert", "natural/vgg", 3)]
    release(run)
    assert quarantined(run) == {}
