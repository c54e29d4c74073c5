"""The stages: from store to store, in any order that their inputs allow, with results that depend on inputs only."""

import numpy as np
import pytest
import torch
from conftest import run_all, tiny

from netsim import cka, stages
from netsim.datasets import load_images, to_unit
from netsim.errors import DataError, SettingsError, StoreError
from netsim.preflight import check
from netsim.results import load_results
from netsim.store import Run


def similarity_of(run: Run) -> dict[str, np.ndarray]:
    return {name: run.array(f"similarity/{name}/cka_unbiased_left_out")[...] for name in stages.sets(run.settings)}


def test_every_stage_of_a_finished_run_has_nothing_missing(finished):
    assert {stage.name: stage.missing(finished) for stage in stages.STAGES} == {
        name: [] for name in ("train", "draw", "invert", "embed", "aggregate", "report")
    }


def test_labels_of_every_stored_pair_differ_and_the_images_are_the_sources(finished):
    images = load_images("fashion-mnist", "test")
    seed, target = (finished.array(f"pairs/{kind}")[...] for kind in ("seed", "target"))
    assert (images.labels[seed] != images.labels[target]).all()
    np.testing.assert_array_equal(finished.array("images/target")[...], images.read(target))
    np.testing.assert_array_equal(finished.array("images/seed")[...], images.read(seed))


def test_stored_loss_is_the_loss_of_the_stored_images(finished):
    """Measured anew, without netsim's own reading and rounding."""
    network = stages.network(finished, "resnet18")
    image = torch.from_numpy(finished.array("inverted/resnet18/image")[...] / 65535).float()
    target = to_unit(finished.array("images/target")[...])
    with torch.no_grad():
        rep, wanted = network.represent(image), network.represent(target)
    expected = (rep - wanted).norm(dim=1) / wanted.norm(dim=1)
    np.testing.assert_allclose(finished.array("inverted/resnet18/final_loss")[...], expected, rtol=1e-4)


def test_inversion_lowers_every_loss_and_history_begins_and_ends_with_it(finished):
    for name in finished.settings.names:
        group = f"inverted/{name}"
        initial, final, history = (
            finished.array(f"{group}/{key}")[...] for key in ("initial_loss", "final_loss", "history")
        )
        assert (final < initial).all()
        np.testing.assert_array_equal(history[:, 0], initial)
        assert history.shape == (32, 6)  # every one of 5 iterations, and the seed


@pytest.mark.parametrize("iterations", [1, 2, 63, 64, 65, 500, 2000])
def test_kept_history_is_sorted_short_and_has_both_ends(iterations):
    kept = stages.history_iterations(iterations)
    assert kept[0] == 0 and kept[-1] == iterations
    assert (np.diff(kept) > 0).all() and len(kept) <= 65


def test_matrices_are_cka_of_the_stored_representations(finished):
    """The whole path against one call on everything at once."""
    results = load_results(finished)
    for kind, matrix in (("natural", results.natural), ("inverted", results.inverted)):
        for i, through in enumerate(results.networks):
            set_name = "natural" if kind == "natural" else f"inverted/{through}"
            own = finished.array(f"representations/{set_name}/{through}")[...]
            for j, observer in enumerate(results.networks):
                other = finished.array(f"representations/{set_name}/{observer}")[...]
                assert matrix.cka[i, j] == pytest.approx(cka.linear_cka(own, other, "biased"), abs=1e-10)
                assert matrix.cka_unbiased[i, j] == pytest.approx(cka.linear_cka(own, other, "unbiased"), abs=1e-10)


def test_natural_is_symmetric_and_both_diagonals_are_one(finished):
    results = load_results(finished)
    np.testing.assert_array_equal(results.natural.cka, results.natural.cka.T)
    for matrix in (results.natural, results.inverted):
        np.testing.assert_array_equal(np.diag(matrix.cka), 1)
        np.testing.assert_array_equal(np.diag(matrix.cka_unbiased), 1)


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
    assert load_results(finished).natural.mean_unbiased.se == pytest.approx(se, rel=1e-6)


def test_identical_networks_have_inverted_cka_one(tmp_path):
    settings = tiny(networks=["a=small:vgg@none", "b=small:vgg@none", "small:resnet18@none"])
    run = Run.create(str(tmp_path), settings)
    run_all(run)
    inverted = load_results(run).inverted.cka_unbiased
    assert inverted[0, 1] == pytest.approx(1, abs=1e-9) and inverted[1, 0] == pytest.approx(1, abs=1e-9)
    assert inverted[0, 2] < 0.999


def test_order_of_work_does_not_change_a_bit(finished, tmp_path):
    run = Run.create(str(tmp_path), finished.settings)
    for stage in stages.STAGES:
        stage.prepare(run)
        for name, shard in reversed(stage.missing(run)):
            stage.work(run, name, shard)
    for name, values in similarity_of(finished).items():
        np.testing.assert_array_equal(similarity_of(run)[name], values)


def test_a_longer_run_keeps_the_pairs_and_inversions_of_a_shorter_one(finished, tmp_path):
    run = Run.create(str(tmp_path), tiny(pairs={"count": 48, "shard_size": 8}))
    for stage in (stages.TRAIN, stages.DRAW):
        stage.prepare(run)
        for name, shard in stage.missing(run):
            stage.work(run, name, shard)
    stages.INVERT.prepare(run)
    stages.INVERT.work(run, "vgg", 1)
    for path in ("pairs/seed", "pairs/target"):
        np.testing.assert_array_equal(run.array(path)[:32], finished.array(path)[...])
    np.testing.assert_array_equal(run.array("inverted/vgg/image")[8:16], finished.array("inverted/vgg/image")[8:16])


def test_comparison_waits_for_every_shard(finished, tmp_path):
    run = Run.create(str(tmp_path), finished.settings)
    with pytest.raises(StoreError, match=r"is not finished: 3 of 3 shards of train are missing; `netsim run --store"):
        load_results(run)
    stages.AGGREGATE.arrays(finished)
    with pytest.raises(StoreError, match="embed natural shard 0 is not done"):
        stages.AGGREGATE.work(run, "natural", 0)


def test_weights_that_changed_behind_a_reference_are_refused(tmp_path):
    from netsim.networks import load_network, weights_to_bytes

    weights = tmp_path / "w.safetensors"
    network = load_network("small:vgg@none")
    weights.write_bytes(weights_to_bytes(network))
    run = Run.create(str(tmp_path / "run"), tiny(networks=[f"small:vgg@{weights}", "small:resnet18@none"]))
    stages.TRAIN.work(run, "vgg", 0)
    with torch.no_grad():
        next(iter(network.body.parameters())).mul_(1.001)
    weights.write_bytes(weights_to_bytes(network))
    with pytest.raises(StoreError, match="are not those this run began with; changed weights need a new --store"):
        stages.network(run, "vgg")


def test_trained_weights_that_were_damaged_are_refused(tmp_path):
    run = Run.create(str(tmp_path), tiny())
    stages.TRAIN.work(run, "vgg", 0)
    data = bytearray(run.get_file("weights/vgg.safetensors"))
    data[-1] ^= 1
    run.put_file("weights/vgg.safetensors", bytes(data))
    with pytest.raises(StoreError, match=r"weights/vgg.safetensors, shard 0, .* is damaged"):
        stages.network(run, "vgg")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"networks": ["small:vgg", "small:resnet81"]}, SettingsError, "did you mean 'resnet18'"),
        ({"networks": ["small:vgg", "smal:resnet18"]}, SettingsError, "did you mean 'small'"),
        ({"images": {"source": "fashion-mnits"}}, SettingsError, "did you mean 'fashion-mnist'"),
        ({"pairs": {"count": 4096}}, DataError, "4096"),
    ],
)
def test_what_a_run_would_trip_over_is_found_before_it_starts(changes, error, message):
    with pytest.raises(error, match=message):
        check(tiny(**changes))
