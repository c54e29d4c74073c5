"""Inverted images are stored with their losses, history, precision and reasons for stopping."""

import numpy as np
import torch
import xarray as xr

from netsim.images import to_unit
from netsim.inversion.invert import invert_batches
from netsim.inversion.steps import LbfgsPathUpdate
from netsim.results.gallery import gallery
from netsim.results.results import load_results
from netsim.settings import STOP_REASONS, InversionSettings
from netsim.stages import inputs
from netsim.stages.work import compute_unit
from netsim.store import layout
from netsim.store.stages import DRAW, INVERT, TRAIN
from netsim.verify import verify
from support.sweeps import TINY, new_run, run_all, tiny
from unit.stages.examples import column


def test_stored_loss_is_the_loss_of_the_stored_images(finished):
    """The twin uses neither the reading nor the rounding of netsim."""
    network = inputs.network(finished, "resnet18")
    image = torch.from_numpy(finished.array("inverted/resnet18/image")[...] / 65535).float()
    target = to_unit(finished.array("images/target")[...])
    with torch.no_grad():
        inverted, wanted = network.represent(image), network.represent(target)
    expected = (inverted - wanted).norm(dim=1) / wanted.norm(dim=1)
    np.testing.assert_allclose(column(finished, "resnet18", "final_loss"), expected, rtol=1e-4)


def test_inversion_lowers_every_loss_and_the_history_starts_with_the_initial_one(finished):
    for name in finished.settings.names:
        initial, final = (column(finished, name, key) for key in ("initial_loss", "final_loss"))
        history = finished.array(f"inverted/{name}/history")[...]
        assert (final < initial).all()
        np.testing.assert_array_equal(history[:, 0], initial)
        assert history.shape == (32, 6)  # the seed and each of 5 iterations


def test_images_may_be_stored_as_float32(finished, tmp_path):
    run = new_run(str(tmp_path), tiny(inversion=TINY["inversion"] | {"stored_as": "float32"}))
    run_all(run)
    exact, rounded = (
        stored.read(record, "inverted/vgg/image")
        for stored, record in ((run, run.record("invert", "vgg", 1)), (finished, finished.record("invert", "vgg", 1)))
    )
    assert exact.dtype == np.float32 and 0 <= exact.min() < exact.max() <= 1
    np.testing.assert_array_equal((exact.astype(float) * 65535).round(), rounded)
    assert verify(run) == []
    assert gallery(run).inverted["vgg"].dtype == np.float32
    images = xr.open_zarr(run.url, group="inverted/vgg", consolidated=False).image
    np.testing.assert_array_equal(images[8:16], exact)


def test_a_network_that_represents_targets_by_zeros_is_flagged_and_does_not_fail(tmp_path):
    """A distance relative to zero is not finite."""
    run = new_run(str(tmp_path / "run"), tiny(networks=["python:unit.stages.test_invert:dead", "small:vgg@none"]))
    compute_unit(run, TRAIN, "dead", 0)
    DRAW.prepare(run, [("pairs", 0)])
    compute_unit(run, DRAW, "pairs", 0)
    INVERT.prepare(run, [("dead", 0)])
    record = compute_unit(run, INVERT, "dead", 0)
    assert record.facts["median_loss"] is None
    assert layout.quantity(run.read(record, "inverted/dead/losses"), "nonfinite").all()


def dead() -> torch.nn.Module:
    """Build a network whose representation of every image is zero."""
    linear = torch.nn.Linear(784, 8)
    torch.nn.init.constant_(linear.bias, -100)
    return torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.ReLU(), torch.nn.Linear(8, 10))


def test_the_preset_of_the_settings_is_used(finished, tmp_path):
    run = new_run(str(tmp_path), tiny(inversion={"preset": "fast", "iterations": 6}))
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


def test_iterations_and_stop_reasons_are_stored_with_the_precision(tmp_path):
    inversion = {"iterations": 12, "batch_size": 3, "stop_loss": 0.97, "precision": "float16"}
    run = new_run(str(tmp_path / "run"), tiny(inversion=inversion))
    for stage, units in (
        (TRAIN, [(name, 0) for name in run.settings.names]),
        (DRAW, [("pairs", 0)]),
        (INVERT, [("resnet18", 0)]),
    ):
        stage.prepare(run, units)
        for unit in units:
            compute_unit(run, stage, *unit)

    record = run.record("invert", "resnet18", 0)
    losses, history = (run.read(record, f"inverted/resnet18/{kind}") for kind in ("losses", "history"))
    columns = ("initial_loss", "final_loss", "iterations", "stop_reason", "best_iteration")
    initial, final, iterations, reason, best = (layout.quantity(losses, name) for name in columns)
    iterations, reason = iterations.astype(int), reason.astype(int)
    reached = final <= 0.98  # half precision and storing change a loss by less than 0.01
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
