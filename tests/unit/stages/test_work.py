"""The stages: from store to store, in any order that their inputs allow, with results that depend on inputs only."""

import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from netsim.errors import DataError, NetworkError, SettingsError, StoreError
from netsim.images import load_images, to_unit
from netsim.inversion.invert import invert_batches
from netsim.inversion.steps import LbfgsPathUpdate
from netsim.planning import preflight
from netsim.results.as_json import to_json
from netsim.results.gallery import gallery
from netsim.results.results import load_results
from netsim.settings import STOP_REASONS, InversionSettings
from netsim.similarity import cka
from netsim.stages import inputs, train, work
from netsim.stages.work import compute_unit
from netsim.storage.stopwatch import count_waiting
from netsim.store import layout, provenance
from netsim.store.layout import rows
from netsim.store.records import Record, sealed
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, CHECK, DRAW, INVERT, STAGES, TRAIN, Stage
from netsim.verify import verify
from support.sweeps import TINY, run_all, tiny
from tasks.prepare import prepare


def similarity_of(run: Run) -> dict[str, np.ndarray]:
    return {row: run.array(f"similarity/{row}/moments")[...] for row in rows(run.settings)}


def test_every_stage_of_a_finished_run_has_nothing_missing(finished):
    assert {stage.name: stage.missing(finished) for stage in STAGES} == {
        name: [] for name in ("check", "train", "draw", "invert", "embed", "aggregate", "report")
    }


def test_labels_of_every_stored_pair_differ_and_the_images_are_the_sources(finished):
    images = load_images("fashion-mnist", "test")
    seed, target = (finished.array(f"pairs/{kind}")[...] for kind in ("seed", "target"))
    assert (images.labels[seed] != images.labels[target]).all()
    np.testing.assert_array_equal(finished.array("images/target")[...], images.read(target))
    np.testing.assert_array_equal(finished.array("images/seed")[...], images.read(seed))


def test_stored_loss_is_the_loss_of_the_stored_images(finished):
    """Measured anew, without netsim's own reading and rounding."""
    network = inputs.network(finished, "resnet18")
    image = torch.from_numpy(finished.array("inverted/resnet18/image")[...] / 65535).float()
    target = to_unit(finished.array("images/target")[...])
    with torch.no_grad():
        rep, wanted = network.represent(image), network.represent(target)
    expected = (rep - wanted).norm(dim=1) / wanted.norm(dim=1)
    np.testing.assert_allclose(column(finished, "resnet18", "final_loss"), expected, rtol=1e-4)


def column(run: Run, through: str, name: str) -> np.ndarray:
    return layout.quantity(run.array(f"inverted/{through}/losses")[...], name)


def test_inversion_lowers_every_loss_and_history_begins_and_ends_with_it(finished):
    for name in finished.settings.names:
        initial, final = (column(finished, name, key) for key in ("initial_loss", "final_loss"))
        history = finished.array(f"inverted/{name}/history")[...]
        assert (final < initial).all()
        np.testing.assert_array_equal(history[:, 0], initial)
        assert history.shape == (32, 6)  # every one of 5 iterations, and the seed


@pytest.mark.parametrize("iterations", [1, 2, 63, 64, 65, 500, 2000])
def test_kept_history_is_sorted_short_and_has_both_ends(iterations):
    kept = layout.history_iterations(iterations)
    assert kept[0] == 0 and kept[-1] == iterations
    assert (np.diff(kept) > 0).all() and len(kept) <= 65


def test_matrices_are_cka_of_the_stored_representations(finished):
    """The whole path against one call on everything at once."""
    results = load_results(finished)
    for kind in ("natural", "inverted"):
        for i, through in enumerate(results.networks):
            set_name = "natural" if kind == "natural" else f"inverted/{through}"
            own = finished.array(f"representations/{set_name}/{through}")[...]
            for j, observer in enumerate(results.networks):
                other = finished.array(f"representations/{set_name}/{observer}")[...]
                for estimator in ("biased", "unbiased"):
                    expected = pytest.approx(cka.linear_cka(own, other, estimator), abs=1e-10)
                    assert results.cells(kind, estimator)[i, j] == expected


def test_natural_is_symmetric_and_both_diagonals_are_one(finished):
    results = load_results(finished)
    np.testing.assert_array_equal(results.cells("natural", "biased"), results.cells("natural", "biased").T)
    for kind, estimator in itertools.product(("natural", "inverted"), ("biased", "unbiased")):
        np.testing.assert_array_equal(np.diag(results.cells(kind, estimator)), 1)


def test_error_of_a_mean_is_the_jackknife_of_that_mean(finished):
    """Deleting a shard of images deletes it from every cell: 4 shards, recomputed from nothing."""
    names, shards = finished.settings.names, 4
    left_out = []
    for deleted in range(shards):
        keep = np.repeat(np.arange(shards) != deleted, 8)
        reps = [finished.array(f"representations/natural/{name}")[...][keep] for name in names]
        cells = [cka.linear_cka(x, y, "unbiased") for i, x in enumerate(reps) for j, y in enumerate(reps) if i != j]
        left_out.append(np.mean(cells))
    se = np.sqrt((shards - 1) / shards * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert load_results(finished).means["natural", "unbiased"].se == pytest.approx(se, rel=1e-6)


def test_rows_are_compared_pair_by_pair_of_left_out_shards(finished):
    """vgg's inverted row minus resnet18's, recomputed from nothing with each of 4 shards left out of both."""
    results, names = load_results(finished), finished.settings.names

    def row_mean(through: str, keep: np.ndarray) -> float:
        reps = {name: finished.array(f"representations/inverted/{through}/{name}")[...][keep] for name in names}
        return np.mean([cka.linear_cka(reps[through], reps[o], "unbiased") for o in names if o != through])

    def difference(keep: np.ndarray) -> float:
        return row_mean("vgg", keep) - row_mean("resnet18", keep)

    found = results.row_differences["vgg", "resnet18"]
    left_out = np.array([difference(np.repeat(np.arange(4) != deleted, 8)) for deleted in range(4)])
    assert found.value == pytest.approx(difference(np.ones(32, dtype=bool)), abs=1e-9)
    assert found.se == pytest.approx(np.sqrt(3 / 4 * np.sum((left_out - left_out.mean()) ** 2)), rel=1e-6)
    assert found.df == 3
    assert results.rows["inverted", "unbiased"]["vgg"].value == pytest.approx(
        row_mean("vgg", np.ones(32, dtype=bool)), abs=1e-9
    )


def test_identical_networks_have_inverted_cka_one(tmp_path):
    settings = tiny(networks=["a=small:vgg@none", "b=small:vgg@none", "small:resnet18@none"])
    run = Run.create(str(tmp_path), settings)
    run_all(run)
    inverted = load_results(run).cells("inverted")
    assert inverted[0, 1] == pytest.approx(1, abs=1e-9) and inverted[1, 0] == pytest.approx(1, abs=1e-9)
    assert inverted[0, 2] < 0.999


def test_order_of_work_does_not_change_a_bit(finished, tmp_path):
    run = Run.create(str(tmp_path), finished.settings)
    for stage in STAGES:
        stage.prepare(run)
        for name, shard in reversed(stage.missing(run)):
            compute_unit(run, stage, name, shard)
    for name, values in similarity_of(finished).items():
        np.testing.assert_array_equal(similarity_of(run)[name], values)


def recorded(monkeypatch, run: Run, stages_done: list[str], *, fail_on: int | None = None) -> Stage:
    """A stage of four shards that notes when it computes, and when it begins and ends to write."""

    def compute(run: Run, name: str, shard: int) -> work.StageResult:
        stages_done.append(f"compute {shard}")
        if shard == fail_on:
            raise NetworkError("not finite")
        time.sleep(0.05)
        return work.StageResult(files={f"report/{shard}": b"x"}, obsolete=(f"old/{shard}",))

    commit = work.commit

    def noted_commit(run: Run, stage: Stage, name: str, shard: int, result: work.StageResult, seconds: float) -> Record:
        stages_done.append(f"write {shard}")
        time.sleep(0.01)
        record = commit(run, stage, name, shard, result, seconds)
        stages_done.append(f"written {shard}")
        return record

    monkeypatch.setattr(work, "commit", noted_commit)
    return Stage("noted", "Noted", lambda settings: {"a": 4}, compute=compute)


def test_a_shard_is_written_while_the_next_is_computed(tmp_path, monkeypatch):
    run, noted = Run.create(str(tmp_path), tiny()), []
    run.files.put("old/2", b"a checkpoint")
    stage = recorded(monkeypatch, run, noted)
    compute_unit(run, stage, "a", 1)
    noted.clear()
    with count_waiting() as waited:
        records = list(work.work_through(run, stage, "a", range(4)))
    assert [record.shard for record in records] == [0, 2, 3] and stage.missing(run) == []
    assert sorted(noted) == sorted(f"{what} {shard}" for shard in (0, 2, 3) for what in ("compute", "write", "written"))
    for shard, following in ((0, 2), (2, 3)):
        assert noted.index(f"compute {following}") < noted.index(f"written {shard}")
    assert run.files.get_or_none("old/2") is None and all(record.seconds >= 0.05 for record in records)
    assert 0.01 <= waited.seconds < 0.05  # the last one


def test_what_was_computed_before_a_fault_is_committed(tmp_path, monkeypatch):
    run, noted = Run.create(str(tmp_path), tiny()), []
    with pytest.raises(NetworkError):
        list(work.work_through(run, recorded(monkeypatch, run, noted, fail_on=2), "a", range(4)))
    assert set(run.done("noted")) == {("a", 0), ("a", 1)}


def test_what_a_shard_took_is_told_when_it_is_the_only_one(tmp_path, monkeypatch):
    run, told = Run.create(str(tmp_path), tiny()), []
    (record,) = work.work_through(run, recorded(monkeypatch, run, []), "a", [1], took=told.append)
    assert [round(seconds, 3) for seconds in told] == [record.seconds] and told[0] >= 0.05


def test_a_write_that_fails_ends_the_work(tmp_path, monkeypatch):
    run = Run.create(str(tmp_path), tiny())
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(StoreError):
        list(work.work_through(run, recorded(monkeypatch, run, []), "a", range(4)))
    assert run.done("noted") == {}


def test_images_may_be_kept_as_floats(finished, tmp_path):
    run = Run.create(str(tmp_path), tiny(inversion=TINY["inversion"] | {"stored_as": "float32"}))
    run_all(run)
    record = run.record("invert", "vgg", 1)
    exact, rounded = (
        of.read(record_of, "inverted/vgg/image")
        for of, record_of in ((run, record), (finished, finished.record("invert", "vgg", 1)))
    )
    assert exact.dtype == np.float32 and 0 <= exact.min() < exact.max() <= 1
    np.testing.assert_array_equal((exact.astype(float) * 65535).round(), rounded)
    assert verify(run) == []
    assert gallery(run).inverted["vgg"].dtype == np.float32
    images = xr.open_zarr(run.url, group="inverted/vgg", consolidated=False).image
    np.testing.assert_array_equal(images[8:16], exact)


def test_xarray_opens_a_whole_run_without_netsim(finished):
    """Every group, with names of dimensions and coordinates; images in [0, 1]."""
    tree = xr.open_datatree(finished.url, engine="zarr", consolidated=False)
    results = load_results(finished)
    cells = tree["results"].cka_unbiased
    assert cells.dims == ("set", "through", "observer")
    assert float(cells.sel(set="inverted", through="resnet18", observer="vgg")) == results.cells("inverted")[1, 0]
    assert tree["pairs"].seed_label.sel(pair=9) != tree["pairs"].target_label.sel(pair=9)
    inverted = tree["inverted/vgg"]
    assert inverted.history.sel(iteration=5).shape == (32,) and inverted.pair[-1] == 31
    final = inverted.losses.sel(quantity="final_loss")
    np.testing.assert_array_equal(final, results.loss["vgg"].final)
    for image in (inverted.image, tree["images"].seed, tree["images"].target):
        assert 0 <= image.min() < 0.2 and 0.8 < image.max() <= 1
    assert tree["representations/natural"].vgg.dims == ("pair", "feature_vgg")
    moments = tree["similarity/inverted/vgg"].moments
    assert moments.sel(model_pair="vgg shufflenet", moment="square").shape == (5,)


def test_a_longer_run_keeps_the_pairs_and_inversions_of_a_shorter_one(finished, tmp_path):
    run = Run.create(str(tmp_path), tiny(pairs={"count": 48, "shard_size": 8}))
    for stage in (TRAIN, DRAW):
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)
    INVERT.prepare(run)
    compute_unit(run, INVERT, "vgg", 1)
    for path in ("pairs/seed", "pairs/target"):
        np.testing.assert_array_equal(run.array(path)[:32], finished.array(path)[...])
    np.testing.assert_array_equal(run.array("inverted/vgg/image")[8:16], finished.array("inverted/vgg/image")[8:16])


def test_comparison_waits_for_every_shard(finished, tmp_path):
    run = Run.create(str(tmp_path), finished.settings)
    missing = r"is not finished: 3 of 3 shards of train are missing, the first train \S+ shard 0; resume with `netsim"
    with pytest.raises(StoreError, match=missing):
        load_results(run)
    with pytest.raises(StoreError, match="embed natural shard 0 is not done"):
        compute_unit(run, AGGREGATE, "natural/vgg", 0)


def test_weights_that_changed_behind_a_reference_are_refused(tmp_path):
    from netsim.networks import load_network, weights_to_bytes

    weights = tmp_path / "w.safetensors"
    network = load_network("small:vgg@none")
    weights.write_bytes(weights_to_bytes(network))
    run = Run.create(str(tmp_path / "run"), tiny(networks=[f"small:vgg@{weights}", "small:resnet18@none"]))
    compute_unit(run, TRAIN, "vgg", 0)
    with torch.no_grad():
        next(iter(network.body.parameters())).mul_(1.001)
    weights.write_bytes(weights_to_bytes(network))
    with pytest.raises(StoreError, match="have changed since this run began; changed weights need a new --store"):
        inputs.network(run, "vgg")


def test_shards_computed_with_other_weights_are_not_mixed(tmp_path):
    """A commit record of `train` that was removed, as the store advises for damage, and another training."""
    run = Run.create(str(tmp_path / "run"), tiny())
    run_all(run)
    compute_unit(run, TRAIN, "vgg", 0)
    load_results(run)  # the same weights again
    record = json.loads(run.files.get("commits/train/vgg/00000.json"))
    record["facts"]["weights_hash"] = "of another training"
    del record["seal"]
    run.files.put("commits/train/vgg/00000.json", json.dumps(sealed(record)).encode())
    run = Run.open(run.url)
    with pytest.raises(
        StoreError, match=r"invert vgg shard 0 in .* was computed with other weights of vgg; `netsim verify --repair "
    ):
        load_results(run)
    with pytest.raises(StoreError, match=r"embed natural shard 0 in .* was computed with other weights"):
        compute_unit(run, AGGREGATE, "natural/vgg", 0)


def folder_of_images(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return f"folder:{folder}"


def own_images(folder: Path, **changes):
    networks = ["a=torchvision:resnet18@none", "b=torchvision:mobilenet_v2@none"]
    images = {"source": folder_of_images(folder), "size": 32}
    return tiny(networks=networks, images=images, pairs={"count": 8, "shard_size": 4}, **changes)


def test_once_pairs_are_drawn_the_images_may_go(tmp_path):
    settings = own_images(tmp_path / "images")
    run = Run.open(prepare(settings, str(tmp_path / "run")))
    for stage in (CHECK, TRAIN, DRAW):
        stage.prepare(run)
        for name, shard in stage.missing(run):
            compute_unit(run, stage, name, shard)
    shutil.rmtree(tmp_path / "images")
    inputs.load_as_recorded.cache_clear()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    run_all(Run.open(prepare(settings, run.url)))
    results = load_results(run)
    assert np.isnan(results.summaries["a"].accuracy)  # its 1000 classes are not these two
    assert to_json(results)["accuracy"] == {"a": None, "b": None}


def test_images_that_changed_since_the_run_began_are_refused(tmp_path):
    run = Run.open(prepare(own_images(tmp_path / "images"), str(tmp_path / "run")))
    compute_unit(run, CHECK, "images", 0)
    compute_unit(run, TRAIN, "a", 0)
    (tmp_path / "images" / "a" / "0.png").unlink()
    inputs.listed_images.cache_clear()
    inputs._readable.cache_clear()
    DRAW.prepare(run)
    with pytest.raises(StoreError, match="have changed since this run began; changed images need a new --store"):
        compute_unit(run, DRAW, "pairs", 0)


def test_a_network_that_represents_targets_by_zeros_is_flagged_and_the_run_goes_on(tmp_path):
    """Relative to nothing, no distance is finite."""
    run = Run.create(str(tmp_path / "run"), tiny(networks=["python:unit.stages.test_work:dead", "small:vgg@none"]))
    compute_unit(run, TRAIN, "dead", 0)
    DRAW.prepare(run)
    compute_unit(run, DRAW, "pairs", 0)
    INVERT.prepare(run)
    record = compute_unit(run, INVERT, "dead", 0)
    assert record.facts["median_loss"] is None
    assert layout.quantity(run.read(record, "inverted/dead/losses"), "nonfinite").all()


def dead() -> torch.nn.Module:
    linear = torch.nn.Linear(784, 8)
    torch.nn.init.constant_(linear.bias, -100)
    return torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.ReLU(), torch.nn.Linear(8, 10))


def test_a_damaged_checkpoint_is_as_good_as_none(finished, tmp_path):
    run = Run.create(str(tmp_path / "run"), finished.settings)
    run.files.put("training/vgg.checkpoint", b"damaged")
    compute_unit(run, TRAIN, "vgg", 0)
    assert provenance.weights_hash(run, "vgg") == provenance.weights_hash(finished, "vgg")


def test_a_class_that_is_in_the_training_images_only_is_learned(tmp_path):
    """Classes without names are as many as the largest label says, and that is another one in each split."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(24, 28, 28), dtype=np.uint8)
    arrays = {"x_train": pixels, "y_train": np.arange(24) % 4, "x_test": pixels, "y_test": np.arange(24) % 3}
    np.savez(tmp_path / "some.npz", **arrays)
    source = {"source": f"npz:{tmp_path}/some.npz"}
    settings = tiny(images=source, networks=["small:vgg", "small:resnet18@none"], pairs={"count": 8, "shard_size": 4})
    preflight.preflight(settings)
    facts = compute_unit(Run.create(str(tmp_path / "run"), settings), TRAIN, "vgg", 0).facts
    assert facts["classes"] == 4 and facts["accuracy"] is not None


def test_training_does_not_go_on_from_a_flipped_bit(tmp_path):
    """It would end as weights that every later check takes for right."""
    run = Run.create(str(tmp_path / "run"), tiny())
    train._train(run, "vgg", inputs.untrained_network(run.settings, "small:vgg", classes=10, shape=(1, 28, 28)))
    kept = bytearray(run.files.get("training/vgg.checkpoint"))
    assert train._last_epoch(run, "vgg") == kept[32:]
    kept[-1] ^= 1
    run.files.put("training/vgg.checkpoint", bytes(kept))
    assert train._last_epoch(run, "vgg") is None


def test_trained_weights_that_were_damaged_are_refused(tmp_path):
    run = Run.create(str(tmp_path), tiny())
    compute_unit(run, TRAIN, "vgg", 0)
    data = bytearray(run.files.get("weights/vgg.safetensors"))
    data[-1] ^= 1
    run.files.put("weights/vgg.safetensors", bytes(data))
    with pytest.raises(StoreError, match=r"weights/vgg.safetensors, shard 0, .* is damaged"):
        inputs.network(run, "vgg")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"networks": ["small:vgg", "small:resnet81"]}, SettingsError, "did you mean 'resnet18'"),
        ({"networks": ["small:vgg", "smal:resnet18"]}, SettingsError, "did you mean 'small'"),
        ({"images": {"source": "fashion-mnits"}}, SettingsError, "did you mean 'fashion-mnist'"),
        ({"pairs": {"count": 4096}}, DataError, "4096"),
        ({"networks": ["small:vgg", "torchvision:resnet18@none"]}, NetworkError, "resnet18"),  # three channels
    ],
)
def test_what_a_run_would_trip_over_is_found_before_it_starts(changes, error, message):
    with pytest.raises(error, match=message):
        preflight.preflight(tiny(**changes))


def test_the_preset_of_the_settings_is_the_one_that_is_used(finished, tmp_path):
    run = Run.create(str(tmp_path), tiny(inversion={"preset": "fast", "iterations": 6}))
    run_all(run)
    results = load_results(run)
    assert (results.preset, results.provenance["preset"]) == ("fast", "fast")
    record, drawn = run.record("invert", "resnet18", 0), run.record("draw", "pairs", 0)
    seed, target = (to_unit(run.read(drawn, f"images/{kind}")) for kind in ("seed", "target"))
    images = invert_batches(
        inputs.network(run, "resnet18"), seed, target, InversionSettings(iterations=6), update_rule=LbfgsPathUpdate()
    ).images
    stored = run.read(record, "inverted/resnet18/image") / np.float32(layout.IMAGE_STEPS)
    np.testing.assert_allclose(stored, images, rtol=0, atol=1e-4)
    assert load_results(finished).preset == "published"


def test_steps_and_reasons_for_stopping_are_stored_with_the_precision(tmp_path):
    inversion = {"iterations": 12, "batch_size": 3, "stop_loss": 0.97, "precision": "float16"}
    run = Run.create(str(tmp_path / "run"), tiny(inversion=inversion))
    for stage, units in (
        (TRAIN, [(name, 0) for name in run.settings.names]),
        (DRAW, [("pairs", 0)]),
        (INVERT, [("resnet18", 0)]),
    ):
        stage.prepare(run)
        for unit in units:
            compute_unit(run, stage, *unit)

    record = run.record("invert", "resnet18", 0)
    losses, history = (run.read(record, f"inverted/resnet18/{kind}") for kind in ("losses", "history"))
    columns = ("initial_loss", "final_loss", "iterations", "stop_reason", "best_iteration")
    initial, final, iterations, reason, best = (layout.quantity(losses, name) for name in columns)
    iterations, reason = iterations.astype(int), reason.astype(int)
    reached = final <= 0.98  # a hundredth for what half precision and storing change
    assert reached.sum() > 0
    for i in range(8):
        if iterations[i] < 12:
            assert STOP_REASONS[reason[i]] == "loss"
        assert (iterations[i] == 0) == (initial[i] <= 0.97)
        assert best[i] <= iterations[i]
        np.testing.assert_array_equal(history[i, iterations[i] :], history[i, iterations[i]])
    assert record.facts["precision"] == "float16, grouped convolutions float32"
    assert record.facts["iterations"] == iterations.sum()
    assert record.facts["batch_size"] == 3
