"""Results are what the store holds, labelled, and refuse a run that is not finished."""

import dataclasses
import itertools
import re
import uuid
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from netsim.errors import StoreError
from netsim.results.matrices import ESTIMATORS, SETS
from netsim.results.results import load_results
from netsim.settings import ALGORITHM
from netsim.storage.files import Files
from netsim.storage.stopwatch import Stopwatch
from netsim.store import layout, provenance
from netsim.store.run import Run
from support.faulty_s3 import faulty
from support.results import make_results, with_loss
from support.seaweed import BUCKET
from support.sweeps import new_run, tiny


def test_losses_are_those_of_the_store(finished):
    results = load_results(finished)
    for name in finished.settings.names:
        loss, stored = results.loss[name], finished.array(f"inverted/{name}/losses")[...]
        for attribute, quantity in (("initial", "initial_loss"), ("final", "final_loss"), ("distance", "distance")):
            np.testing.assert_array_equal(getattr(loss, attribute), layout.quantity(stored, quantity))
        assert loss.median == np.median(layout.quantity(stored, "final_loss"))
        assert (loss.iterations == 5).all() and (loss.stopped, loss.stalled, loss.nonfinite) == (0, 0, 0)
        history = finished.array(f"inverted/{name}/history")[...]
        np.testing.assert_array_equal(loss.history, np.median(history, axis=0))
        assert loss.history_iterations.tolist() == [0, 1, 2, 3, 4, 5]


def test_results_of_a_slow_store_take_a_few_answers_one_after_another_and_not_one_for_each_request(
    finished, object_storage
):
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    files, folder = Files(url), Path(finished.url)
    files.put_all({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    with faulty(object_storage.endpoint) as proxy:
        run = Run.open(url)
        proxy.delay, proxy.requests, watch = 1.0, 0, Stopwatch()
        results = load_results(run)
        # One after another they would take `proxy.requests` seconds or more, however fast the machine.
        assert proxy.requests > 80 and watch() < proxy.requests / 2
    assert results.cells("inverted").tolist() == load_results(finished).cells("inverted").tolist()


def test_networks_are_summarized_as_they_were_recorded(finished):
    results = load_results(finished)
    assert results.networks == finished.settings.names
    for name in results.networks:
        summary = results.summaries[name]
        assert summary.weights_hash == provenance.weights_hash(finished, name)
        assert summary.width == finished.array(f"representations/natural/{name}").shape[1]
        assert summary.trained_here == (name == "vgg")
        assert summary.other_size is None and 0 <= summary.accuracy <= 1
    assert (results.n, results.shards, results.df, results.chance) == (32, 4, 3, 0.1)
    assert results.skipped == {}


def test_provenance_names_the_run_its_settings_and_where_it_was_computed(finished):
    provenance_of = load_results(finished).provenance
    assert provenance_of["run"] == finished.digest
    assert re.fullmatch(r"fashion-mnist, BLAKE3 [0-9a-f]{64}", provenance_of["images"])
    assert provenance_of["algorithm"] == str(ALGORITHM)
    assert provenance_of["preset"] == "published" and provenance_of["precision"] == "float32"
    assert provenance_of["device"].startswith("cpu ") and provenance_of["device"].endswith(", 1 thread(s) a worker")
    created, started, ended = (datetime.fromisoformat(provenance_of[key]) for key in ("created", "started", "ended"))
    last = finished.record("report", finished.sweep.id)
    assert created - timedelta(minutes=1) < started < ended <= datetime.fromisoformat(last.committed)
    stages = [entry.split()[0] for entry in provenance_of["task seconds"].split(", ")]
    assert stages == [
        "train",
        "draw",
        "invert",
        "embed",
        "aggregate",
        "control",
    ]  # `check` has no units for these images


def test_means_of_the_results_are_those_of_their_cells(finished):
    results = load_results(finished)
    off = ~np.eye(3, dtype=bool)
    for estimator in ESTIMATORS:
        natural, inverted = (results.cells(name, estimator)[off].mean() for name in SETS)
        assert results.means["natural", estimator].value == pytest.approx(natural)
        assert results.means["inverted", estimator].value == pytest.approx(inverted)
        assert results.means["difference", estimator].value == pytest.approx(natural - inverted)
        assert {estimate.df for estimate in results.means.values()} == {3}


def test_intervals_of_cells_are_the_error_times_students_t():
    results = dataclasses.replace(make_results(3), shards=8)
    for name, estimator in itertools.product(SETS, ESTIMATORS):
        cka, se, low, high = (results.cells(name, estimator, kind=kind) for kind in ("cka", "se", "low", "high"))
        np.testing.assert_allclose(high - cka, 2.364624 * se, rtol=1e-6, atol=1e-15)  # t(7) at 97.5 %
        np.testing.assert_allclose(cka - low, 2.364624 * se, rtol=1e-6, atol=1e-15)


def test_cells_are_those_of_their_matrix_and_estimator():
    results = make_results(3)
    for name, matrix in results.matrices.items():
        assert results.floor(name) is matrix.floor
        assert (results.similarity.floor.sel(set=name) == matrix.floor).all()
        for e, estimator in enumerate(ESTIMATORS):
            assert (results.cells(name, estimator) == matrix.cka[e]).all()
            replicates = matrix.leave_one_out[e]
            spread = np.square(replicates - replicates.mean(axis=-1, keepdims=True)).sum(axis=-1)
            np.testing.assert_allclose(results.cells(name, estimator, kind="se"), np.sqrt(15 / 16 * spread))
            for kind in ("cka", "se", "low", "high", "undefined"):
                labelled = results.similarity[kind].sel(set=name, estimator=estimator, through="mobilenet")
                expected = results.cells(name, estimator, kind=kind)[1]
                np.testing.assert_array_equal(labelled.sel(observer=list(results.everyone)), expected)


def test_a_network_converged_if_a_twentieth_of_its_images_is_above_the_tolerance_at_most():
    results = dataclasses.replace(make_results(3, n=40), tolerance=0.2)
    assert results.converged == dict.fromkeys(results.networks, True)
    final = np.array([1.0, np.nan, *[results.tolerance] * 38])
    assert results.loss["densenet"].above(0) == 1 and with_loss(results, "densenet", final=final).loss[
        "densenet"
    ].above(results.tolerance) == pytest.approx(2 / 40)
    assert with_loss(results, "densenet", final=final).converged["densenet"]
    assert not with_loss(results, "densenet", final=np.append(final[:-1], 0.21)).converged["densenet"]
    assert not with_loss(results, "densenet", final=np.full(40, np.nan)).converged["densenet"]


def test_a_run_that_is_not_finished_has_no_results(tmp_path):
    run = new_run(str(tmp_path), tiny())
    missing = (
        r"is not finished: 3 of 3 shards of train are missing, the first train \S+ shard 0; resume with `netsim run"
    )
    with pytest.raises(StoreError, match=missing):
        load_results(run)
