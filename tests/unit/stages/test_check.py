"""Unreadable images are found before a set is used: they stop the run, or are skipped and counted."""

from pathlib import Path

import numpy as np
import pytest

from flows.cli import console
from netsim.errors import DataError, StoreError
from netsim.images import load_images
from netsim.planning.preflight import preflight
from netsim.planning.probe import ProbeRequest, probe
from netsim.planning.resolve import resolve
from netsim.results.as_json import to_json
from netsim.results.findings import warnings
from netsim.results.results import load_results
from netsim.settings import PairSettings
from netsim.stages import inputs
from netsim.stages.work import compute_unit
from netsim.store.run import Run
from netsim.store.stages import CHECK, TRAIN
from support import image_formats
from support.sweeps import new_run, run_all, tiny
from tasks.prepare import prepare

BROKEN = ("ant/1.png", "cat/0.png", "cat/2.png", "cat/3.png")


def folder(root: Path, *, broken: bool) -> str:
    """Write twelve photographs in three classes, of which four are broken, or else missing."""
    image_formats.make_folder(root, np.random.default_rng(0))
    for name in BROKEN:
        path = root / "test" / name
        path.write_bytes(path.read_bytes()[:100]) if broken else path.unlink()
    return f"folder:{root}"


def run_on(source: str, store: Path, *, count: int = 8, **images: object) -> Run:
    networks = ["a=torchvision:resnet18@none", "b=torchvision:mobilenet_v2@none"]
    pairs = {"count": count, "shard_size": 4}
    settings = tiny(networks=networks, images={"source": source, "size": 32} | images, pairs=pairs)
    for cached in (inputs.listed_images, inputs._readable):
        cached.cache_clear()
    return prepare(settings, str(store))


def test_unreadable_images_stop_the_run_before_any_network_is_checked(tmp_path):
    run = run_on(folder(tmp_path / "images", broken=True), tmp_path / "run")
    expected = r"cannot read 4 of 12 images of .*'ant/1.png' \(.*\), 'cat/0.png' .* and 1 more.*images.unreadable=skip"
    with pytest.raises(DataError, match=expected):
        run_all(run)
    assert run.stages_done() == []
    with pytest.raises(StoreError, match="check test shard 0 is not done"):
        compute_unit(run, TRAIN, "a", 0)


def test_skipping_images_gives_the_run_of_a_folder_without_them(tmp_path):
    broken, whole = (
        run_on(folder(tmp_path / name / "images", broken=name == "broken"), tmp_path / f"{name} run", unreadable="skip")
        for name in ("broken", "whole")
    )
    for run in (broken, whole):
        run_all(run, only=("check", "train", "draw"))
    for path in ("pairs/seed", "pairs/target_label", "images/seed", "images/target"):
        assert np.array_equal(broken.array(path)[...], whole.array(path)[...])
    hashes = [run.record("draw", "pairs").facts["images_hash"] for run in (broken, whole)]
    assert hashes == [load_images(f"folder:{tmp_path}/whole/images", size=32).content_hash()] * 2


def test_a_later_sweep_has_to_skip_what_an_earlier_one_skipped(tmp_path):
    source = folder(tmp_path / "images", broken=True)
    run = run_on(source, tmp_path / "run", unreadable="skip")
    run_all(run, only=("check",))
    with pytest.raises(
        DataError,
        match=r"^4 of 12 test images are unreadable, and an earlier sweep of .* skipped them; skip them too with --set",
    ):
        run_on(source, tmp_path / "run")
    assert run_on(source, tmp_path / "run", unreadable="skip").sweep.id == run.sweep.id


def test_skipped_images_are_reported(tmp_path, capsys):
    run = run_on(folder(tmp_path / "images", broken=True), tmp_path / "run", unreadable="skip")
    run_all(run)
    results = load_results(run)
    assert to_json(results)["left_out"] == {"test": {"unreadable": 4, "listed": 12}}
    assert any("4 of 12 test images were unreadable and skipped" in line for line in warnings(results))
    unreadable = run.record("check", "test").facts["unreadable"]
    assert [(image["index"], image["name"]) for image in unreadable] == list(zip((1, 8, 10, 11), BROKEN, strict=True))
    console.show_status(run)
    out = " ".join(capsys.readouterr().out.split())
    assert "4 of 12 test images are unreadable and skipped: ant/1.png (" in out


def test_a_probe_skips_the_images_that_a_sweep_skips(tmp_path):
    run = run_on(folder(tmp_path / "images", broken=True), tmp_path / "run", unreadable="skip")
    first, few = run.settings.names[0], {"batch_size": 2, "iterations": 1}  # smaller than the number of pairs
    settings = run.settings.model_dump(mode="json") | {"inversion": few}
    probed = probe(ProbeRequest(settings, first, timed=False))
    assert probed.batch_size == 2 and probed.read > 0
    with pytest.raises(DataError, match=r"cannot read 1 of 8 images of .*'ant/1.png'"):
        probe(ProbeRequest(settings | {"images": settings["images"] | {"unreadable": "stop"}}, first, timed=False))


def test_too_few_readable_images_are_an_error(tmp_path):
    run = run_on(folder(tmp_path / "images", broken=True), tmp_path / "run", count=12, unreadable="skip")
    with pytest.raises(DataError, match="12 pairs require as many different targets, got 8 images"):
        run_all(run)


def test_training_images_are_checked_only_where_a_network_is_trained(tmp_path):
    image_formats.make_folder(tmp_path / "images", np.random.default_rng(0))
    (tmp_path / "images/train/ant").mkdir(parents=True)
    (tmp_path / "images/train/ant/x.png").write_bytes(b"broken")
    source = {"source": f"folder:{tmp_path / 'images'}", "size": 32}
    for name, vgg in (("as it is", "small:vgg@none"), ("trained", "small:vgg")):
        changes = {"networks": [vgg, "small:resnet18@none"], "pairs": {"count": 8, "shard_size": 4}}
        run = new_run(str(tmp_path / name), tiny(images=source, **changes))
        assert compute_unit(run, CHECK, "test", 0).facts["listed"] == 12
        if name == "as it is":
            assert CHECK.missing(run) == []
            continue
        assert CHECK.missing(run) == [("train", 0)]
        with pytest.raises(DataError, match=r"cannot read the image 'ant/x.png' \(.*\) of .*train"):
            compute_unit(run, CHECK, "train", 0)


def test_images_added_since_the_check_are_refused(tmp_path):
    source = folder(tmp_path / "images", broken=True)
    run = run_on(source, tmp_path / "run", unreadable="skip")
    compute_unit(run, CHECK, "test", 0)
    (tmp_path / "images/test/ant/9.png").write_bytes((tmp_path / "images/test/ant/0.png").read_bytes())
    inputs.listed_images.cache_clear()
    with pytest.raises(StoreError, match="have changed since this run began"):
        compute_unit(Run.open(run.url), TRAIN, "a", 0)


# ---- doubles


def with_doubles(root: Path) -> str:
    """Write twelve photographs of three classes, of which one is a copy, and one a copy in another class."""
    image_formats.make_folder(root, np.random.default_rng(0))
    for copy, original in (("ant/3.png", "ant/1.png"), ("cat/1.png", "bee/2.png")):
        (root / "test" / copy).write_bytes((root / "test" / original).read_bytes())
    (root / "test/bee/notes.txt").write_text("no image")
    return f"folder:{root}"


def test_doubles_are_recorded_logged_and_take_no_part_in_pairs(tmp_path, caplog, capsys):
    run = run_on(with_doubles(tmp_path / "images"), tmp_path / "run")
    run_all(run, only=("check", "train", "draw"))
    checked = run.record("check", "test").facts
    assert checked["doubles"] == [[3, 1], [9, 6]] and checked["unreadable"] == []
    assert checked["passed_over"][0].startswith("passed over files that are not images in")
    targets = run.array("pairs/target")[...].tolist() + run.array("pairs/seed")[...].tolist()
    assert not {3, 9} & set(targets) and len(targets) == 16
    notes = run.record("draw", "pairs").facts["notes"]
    assert "2 of 12 (ant/3.png = ant/1.png, cat/1.png = bee/2.png)" in notes[0]
    assert "Pictures with several labels: 1 of the doubles (cat/1.png = bee/2.png)" in notes[1]
    assert {*notes, checked["passed_over"][0]} <= {record.getMessage() for record in caplog.records}
    assert run.record("train", "a").facts["images_hash"] == checked["images_hash"]  # accuracy keeps all images
    console.show_status(run)
    assert checked["passed_over"][0] in " ".join(capsys.readouterr().out.split())  # lines are wrapped


def test_a_run_with_doubles_has_the_pairs_of_a_run_without_them(tmp_path):
    """Also where images are skipped, and in a worker that only reads the record."""
    root = tmp_path / "images"
    source = with_doubles(root)
    (root / "test/ant/0.png").write_bytes(b"broken")
    run = run_on(source, tmp_path / "run", unreadable="skip")
    run_all(run, only=("check", "train"))
    run_all(Run.open(run.url), only=("draw",))
    for name in ("ant/0.png", "ant/3.png", "cat/1.png"):
        (root / "test" / name).unlink()
    clean = run_on(source, tmp_path / "clean", unreadable="skip")
    run_all(clean, only=("check", "train", "draw"))
    for path in ("images/seed", "images/target", "pairs/target_label"):
        assert np.array_equal(run.array(path)[...], clean.array(path)[...])
    assert clean.record("draw", "pairs").facts["notes"] == []


def test_too_few_different_pictures_are_an_error_of_the_check(tmp_path):
    run = run_on(with_doubles(tmp_path / "images"), tmp_path / "run", count=12)
    with pytest.raises(
        DataError, match="12 pairs require as many different targets, got 10 different pictures in 12 images"
    ):
        run_all(run, only=("check",))


def test_doubles_of_images_that_are_not_checked_are_found_where_they_are_drawn(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(12, 28, 28), dtype=np.uint8)
    pixels[7] = pixels[2]
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(12) % 3)
    settings = tiny(
        images={"source": f"npz:{tmp_path / 'x.npz'}"},
        networks=["small:vgg@none", "small:resnet18@none"],
        pairs={"count": 8, "shard_size": 4},
    )
    run = prepare(settings, str(tmp_path / "run"))
    run_all(run)
    assert 7 not in run.array("pairs/target")[...] and 7 not in run.array("pairs/seed")[...]
    results = load_results(run)
    assert "1 of 12 (images[7] = images[2])" in results.notes[0] and len(results.notes) == 2
    assert set(results.notes) <= set(warnings(results)) and to_json(results)["notes"] == list(results.notes)
    more = resolve(settings.model_copy(update={"pairs": PairSettings(count=12, shard_size=4)}), run.url)
    with pytest.raises(DataError, match=r"12 pairs require .* got 11 different pictures in 12 images"):
        preflight(more)
