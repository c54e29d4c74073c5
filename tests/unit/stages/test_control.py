"""Controls of a run against slow twins: whole arrays in memory, and formulas as they are written."""

import numpy as np
import pytest
import torch

from netsim.results.controls import load_controls
from netsim.results.matrices import comparable
from netsim.similarity.cka import linear_cka
from netsim.stages import control, inputs
from netsim.store.run import Run
from netsim.store.stages import CONTROL, EMBED
from support.sweeps import new_run, run_all, tiny, unit_of


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of three networks and one that only looks, inverted a little."""
    folder = tmp_path_factory.mktemp("controls")
    run = new_run(str(folder / "run"), tiny(observers=["small:mobilenet@none"], inversion={"iterations": 30}))
    run_all(run)
    return run


@pytest.fixture(scope="module")
def controls(run):
    return load_controls(run, comparable(run))


def rows(run: Run, set_name: str, name: str) -> np.ndarray:
    return run.array(f"representations/{set_name}/{name}")[...].astype(np.float64)


def cells(run: Run):
    for i, through in enumerate(run.sweep.names):
        for j, observer in enumerate(run.sweep.columns):
            yield (i, j), through, observer


def unbiased(x: np.ndarray, y: np.ndarray) -> float:
    return linear_cka(x, y, estimator="unbiased")


def kept(run: Run, shard: int) -> np.ndarray:
    return np.arange(32) // 8 != shard


@pytest.mark.parametrize(
    ("quantity", "sides"),
    [
        ("natural_seed", lambda run, i, j: (rows(run, "natural", i), rows(run, "seed", j))),
        ("inverted_seed", lambda run, i, j: (rows(run, f"inverted/{i}", i), rows(run, "seed", j))),
        ("seen_seed", lambda run, i, j: (rows(run, f"inverted/{i}", j), rows(run, "seed", j))),
        ("seen_target", lambda run, i, j: (rows(run, f"inverted/{i}", j), rows(run, "natural", j))),
    ],
)
def test_similarities_with_seeds_and_targets_are_cka_of_all_images_and_without_each_shard(
    run, controls, quantity, sides
):
    for place, through, observer in cells(run):
        x, y = sides(run, through, observer)
        assert controls.values[quantity][place] == pytest.approx(unbiased(x, y), abs=1e-9)
        for shard in range(4):
            left = kept(run, shard)
            expected = unbiased(x[left], y[left])
            assert controls.leave_one_out[quantity][place][shard] == pytest.approx(expected, abs=1e-9)


def hsic(k: np.ndarray, l: np.ndarray, n: float) -> float:  # noqa: E741 (the letters of the formula)
    """Compute n (n - 3) times Song's HSIC_1 from centred Gram matrices."""
    q, tx, ty = (np.diag(k) * np.diag(l)).sum(), np.trace(k), np.trace(l)
    return float((k * l).sum() - n / (n - 2) * q + tx * ty / ((n - 1) * (n - 2)))


def test_adjusted_similarity_is_that_of_residuals_with_the_degrees_of_freedom_that_classes_leave(run, controls):
    labels = run.array("pairs/seed_label")[...]
    classes = np.eye(10)[labels][:, np.isin(np.arange(10), labels)]
    project = np.eye(32) - classes @ np.linalg.pinv(classes)
    for place, through, observer in cells(run):
        x, y = (project @ rows(run, f"inverted/{through}", name) for name in (through, observer))
        n = 32 - classes.shape[1] + 1
        value = hsic(x @ x.T, y @ y.T, n) / np.sqrt(hsic(x @ x.T, x @ x.T, n) * hsic(y @ y.T, y @ y.T, n))
        assert controls.values["adjusted"][place] == pytest.approx(value, abs=1e-9)


def test_adjusted_similarity_of_what_only_the_class_has_in_common_is_near_zero():
    """Two sides of 400 images that share the means of five classes and nothing else."""
    rng = np.random.default_rng(0)
    values, plain = [], []
    for _ in range(60):
        labels = rng.integers(5, size=400)
        x, y = (3 * rng.normal(size=(5, 8))[labels] + rng.normal(size=(400, 8)) for _ in range(2))
        means = control.ClassMeans.over([lambda x=x, y=y: {"x": x, "y": y}], [labels])
        left, right = (means.without(name, rows, labels) for name, rows in (("x", x), ("y", y)))
        grams, n = (left @ left.T, right @ right.T), 400 - 5 + 1
        values.append(hsic(*grams, n) / np.sqrt(hsic(grams[0], grams[0], n) * hsic(grams[1], grams[1], n)))
        plain.append(unbiased(x, y))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60) + 1e-3
    assert np.mean(plain) > 0.2


def test_predictions_are_counted_by_whole_networks(run, controls):
    labels = {role: run.array(f"pairs/{role}_label")[...] for role in ("seed", "target")}
    for place, through, observer in cells(run):
        images = torch.tensor(run.array(f"inverted/{through}/image")[...] / np.float32(65535))
        with torch.no_grad():
            classes = inputs.network(run, observer)(images).argmax(dim=1).numpy()
        for role in ("seed", "target"):
            assert controls.values[f"predicts_{role}"][place] == pytest.approx(np.mean(classes == labels[role]))


def test_what_is_not_reached_is_a_share_of_the_variance_of_targets(run, controls):
    for place, through, observer in cells(run):
        seen, target = rows(run, f"inverted/{through}", observer), rows(run, "natural", observer)
        expected = np.square(seen - target).sum() / np.square(target - target.mean(axis=0)).sum()
        assert controls.values["unreached"][place] == pytest.approx(expected, rel=1e-9)
        left = kept(run, 1)
        expected = np.square((seen - target)[left]).sum() / np.square(target[left] - target[left].mean(axis=0)).sum()
        assert controls.leave_one_out["unreached"][place][1] == pytest.approx(expected, rel=1e-9)


def test_a_network_for_other_classes_predicts_none(run, monkeypatch):
    name, shard = unit_of(run, CONTROL, "inverted/vgg", 0)[1:]
    monkeypatch.setattr(control._Row, "asked", lambda row, observer: observer != "resnet18")
    result = control.compute(run, name, shard)
    predicted = result.arrays[f"controls/{name}/predicted"]
    position = sorted(run.sweep.columns).index("resnet18")
    assert np.isnan(predicted[position]).all() and np.isfinite(np.delete(predicted, position, axis=0)).all()


def test_computing_a_unit_again_gives_the_same_bits(run):
    unit = unit_of(run, CONTROL, "inverted/shufflenet", 0)
    result, record = control.compute(run, *unit[1:]), run.record(*unit)
    assert result.arrays.keys() == record.arrays.keys()
    for path, values in result.arrays.items():
        np.testing.assert_array_equal(values, run.read(record, path))
    assert result.metadata.to_json() == record.facts


def test_values_that_do_not_fit_into_memory_are_read_again_and_give_the_same_bits(run, monkeypatch):
    monkeypatch.setattr(control, "KEPT_BYTES", 0)
    unit = unit_of(run, CONTROL, "inverted/vgg", 0)
    result, record = control.compute(run, *unit[1:]), run.record(*unit)
    for path, values in result.arrays.items():
        np.testing.assert_array_equal(values, run.read(record, path))


def test_a_unit_is_made_from_three_sets_and_the_labels(run):
    shutil_of = unit_of(run, EMBED, "seed", 2)
    record = run.record(*unit_of(run, CONTROL, "inverted/vgg", 0))
    from netsim.store.provenance import source_units

    units = source_units(run, record)
    assert shutil_of in units and ("draw", "pairs", 3) in units
    assert {unit[1].rpartition("/")[0] for unit in units if unit[0] == "embed"} == {"natural", "seed", "inverted/vgg"}
