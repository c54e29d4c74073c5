"""Estimates of `netsim plan`: shards, FLOPs and bytes equal those of a real run; an impossible run is refused."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.tables import show_estimate
from netsim.errors import SettingsError, StoreError
from netsim.networks import load_network
from netsim.planning import estimate as planning
from netsim.planning.estimate import (
    CostEstimate,
    Device,
    Range,
    check_writable,
    device_from_run,
    device_from_tflops,
    estimate,
    require_time,
)
from netsim.planning.probe import Probe, ProbeRequest
from netsim.planning.prober import Prober
from netsim.results.findings import equal_weights, seeds_tell
from netsim.settings import parse_settings
from netsim.similarity.uncertainty import few_shards
from netsim.stages.work import compute_unit
from netsim.storage.files import Files
from netsim.store.stages import INVERT, STAGES
from support.seaweed import BUCKET
from support.servers import NETSIM
from support.sweeps import TINY, new_run, run_all, tiny

PER_TASK = {"draw": 4, "invert": 3, "embed": 8}
DEVICE = Device("a device", Range(1e9, 2e9, 4e9), {})


class OneProber:
    """A real prober for all tests, which measures a network once: other networks and the pairs do not matter."""

    def __init__(self) -> None:
        self.prober = Prober()
        self.requests: list[ProbeRequest] = []
        self._once = cache(self._measure)

    def _measure(self, reference: str, inversion: str, timed: bool) -> Probe:
        settings = tiny(networks=[f"it={reference}", "other=small:vgg"], inversion=json.loads(inversion))
        return self.prober.measure(ProbeRequest(settings.model_dump(mode="json"), "it", timed=timed))

    def measure(self, request: ProbeRequest, processes: int = 1) -> Probe:
        self.requests.append(request)
        settings = parse_settings(request.settings)
        (member,) = (m for m in (*settings.members, *settings.observing) if m.name == request.name)
        probe = self._once(member.reference, settings.inversion.model_dump_json(), request.timed)
        return replace(probe, name=request.name)


@pytest.fixture(autouse=True, scope="module")
def one() -> Iterator[OneProber]:
    shared = OneProber()
    with shared.prober, pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "Prober", lambda *_: nullcontext(shared))
        yield shared


def planned(store: Any, **changes: Any) -> CostEstimate:
    return estimate(tiny(**changes), str(store), workers=2, shards_per_task=PER_TASK, device=DEVICE)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> CostEstimate:
    """The estimate of a sweep that does not exist yet."""
    return planned(tmp_path_factory.mktemp("plan") / "run")


def test_shards_are_those_of_the_sweep_and_tasks_those_that_it_is_cut_into(plan, finished):
    shards = {stage.stage: stage.shards for stage in plan.stages}
    assert shards == {stage.name: stage.total(finished.sweep) for stage in STAGES}
    tasks = {stage.stage: stage.tasks for stage in plan.stages}
    cut = {"check": 0, "train": 3, "draw": 1, "invert": 6, "embed": 5, "aggregate": 6, "control": 3, "report": 1}
    assert tasks == cut


def test_flops_of_inversions_are_those_that_their_records_count(plan, finished):
    counted = sum(
        finished.record("invert", name, shard).facts["flops"] for name in finished.settings.names for shard in range(4)
    )
    (invert,) = (stage for stage in plan.stages if stage.stage == "invert")
    assert invert.flops == counted > 0


def test_a_sweep_stores_the_bytes_that_are_planned(plan, finished):
    by_stage = {stage.stage: stage.stored for stage in plan.stages}
    for stage, folders in {"invert": ["inverted"], "embed": ["representations"], "draw": ["images", "pairs"]}.items():
        files = [path for folder in (*folders, f"commits/{stage}") for path in Path(finished.url, folder).rglob("*")]
        assert by_stage[stage] == pytest.approx(sum(file.stat().st_size for file in files if file.is_file()), rel=0.25)


def test_seconds_on_another_device_are_flops_by_its_speed(plan):
    (invert,) = (stage for stage in plan.stages if stage.stage == "invert")
    assert invert.seconds == pytest.approx((invert.flops / 4e9, invert.flops / 2e9, invert.flops / 1e9))
    (aggregate,) = (stage for stage in plan.stages if stage.stage == "aggregate")
    assert aggregate.seconds.mean > 0  # it is computed on processors, like these
    low, mean, high = plan.device_seconds
    assert low < 0.9 * mean < 1.1 * mean < high


def test_networks_that_cost_the_same_are_measured_once(one, tmp_path):
    """Seeds and levels of eps change no cost; an attack, and the steps of it, do."""
    grid = {"arch": ["vgg", "shufflenet"], "eps": [0, 0.25, 0.5], "rng_seed": [0, 1]}
    networks = [
        {"reference": "small:{arch}", "training": {"adversarial": {"steps": 2}}, "grid": grid},
        {"name": "longer", "reference": "small:vgg", "training": {"adversarial": {"steps": 3, "eps": 0.5}}},
    ]
    one.requests.clear()
    seen: list[None] = []
    result = estimate(
        tiny(networks=networks),
        str(tmp_path / "run"),
        workers=2,
        shards_per_task=PER_TASK,
        device=DEVICE,
        on_network=lambda: seen.append(None),
    )
    assert len(one.requests) == 5 and "longer" in {request.name for request in one.requests}
    names = [member.name for member in tiny(networks=networks).members]
    assert [probe.name for probe in result.networks] == names and len(seen) == len(names) == 13
    widths = {name: probe.width for name, probe in zip(names, result.networks, strict=True)}
    assert {widths[name] for name in names if "vgg" in name} == {128}


def test_probes_say_what_the_networks_are(plan):
    for member, probe in zip(tiny().members, plan.networks, strict=True):
        name, reference = member.name, member.reference.partition("@")[0]
        network = load_network(f"{reference}@none", num_classes=10, input_shape=(1, 28, 28))
        assert (probe.name, probe.width, probe.input_shape) == (name, network.width, (1, 28, 28))
        assert probe.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert probe.batch_size == 8
        assert plan.worker_bytes > probe.host_bytes > 2e8  # torch alone has that much
        assert probe.asked
    assert plan.downloaded == () and not plan.at_most


def test_few_shards_and_what_seeds_tell_are_warned_of_before_the_run(plan, tmp_path, capsys):
    (seeds,) = seeds_tell(10, 1 / 81)
    assert plan.warnings == plan.to_json()["warnings"] == (seeds, few_shards(4))
    show_estimate(plan, None)
    out = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert f"WARNING {few_shards(4)}" in out and out.count(f"WARNING {seeds}") == 1
    pairs = {"count": 40, "shard_size": 8, "seed_labels": "any"}
    assert planned(tmp_path / "run", pairs=pairs).warnings == ()


def test_a_sweep_that_may_stop_early_is_planned_with_all_of_its_pairs(plan, tmp_path, capsys):
    rule = {"count": 96, "shard_size": 8, "until": {"half_width": 0.1}}
    most = planned(tmp_path / "run", pairs=rule)
    assert (most.first_look, plan.first_look) == (64, None)
    assert {stage.stage: stage.shards for stage in most.stages}["draw"] == 12
    show_estimate(most, None)
    assert "stops when its results are known, after 64 pairs at the earliest" in " ".join(
        capsys.readouterr().out.split()
    )


def test_networks_with_the_same_reference_are_known_before_the_run(plan, tmp_path, capsys):
    assert plan.twins == ()
    networks = ["a=small:vgg", "small:resnet18@none", "b=small:vgg"]
    twice = planned(tmp_path / "run", networks=networks)
    assert twice.warnings[0] == equal_weights(["a", "b"])
    assert twice.twins == (("a", "b"),) and twice.to_json()["twins"] == (("a", "b"),)
    show_estimate(twice, None)
    assert "WARNING  Equal weights: a and b are both the same network." in capsys.readouterr().out


def test_of_a_finished_run_nothing_is_missing(finished):
    nothing = planned(finished.url)
    assert (nothing.stored, nothing.flops, nothing.device_seconds.mean) == (0, 0, 0)
    assert all(stage.shards == 0 for stage in nothing.stages)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # the new network represents four sets, and all four networks represent its own
        (
            {"networks": [*TINY["networks"], "small:wrn2@none"]},
            {"train": 1, "invert": 4, "embed": 24, "aggregate": 5, "control": 4, "report": 1},
        ),
        ({"observers": ["small:wrn2@none"]}, {"train": 1, "embed": 20, "aggregate": 4, "control": 3, "report": 1}),
        (
            {"pairs": {"count": 48, "shard_size": 8}},
            {"draw": 2, "invert": 6, "embed": 10, "aggregate": 6, "control": 3, "report": 1},
        ),
        # the sums over fewer shards
        (
            {"networks": TINY["networks"][:2], "pairs": {"count": 16, "shard_size": 8}},
            {"aggregate": 4, "control": 2, "report": 1},
        ),
        ({"networks": [*reversed(TINY["networks"]), "again=small:vgg"]}, {"report": 1}),
    ],
    ids=["a network", "an observer", "pairs", "less", "another order and name"],
)
def test_of_a_store_that_grows_only_what_is_new_is_planned(finished, changes, expected):
    stages = planned(finished.url, **changes).stages
    assert {stage.stage: stage.shards for stage in stages if stage.shards} == expected


def test_a_network_that_is_added_stores_the_bytes_that_are_planned(finished, tmp_path):
    store, networks = shutil.copytree(finished.url, tmp_path / "run"), [*TINY["networks"], "small:wrn2@none"]
    stages, before = planned(store, networks=networks).stages, files_below(store)
    run = new_run(str(store), tiny(networks=networks))
    assert run_all(run) == {stage.stage: stage.shards for stage in stages}
    values = ("inverted/", "representations/")
    added = sum(size for path, size in files_below(store).items() if path not in before and path.startswith(values))
    assert sum(stage.stored for stage in stages if stage.stage in ("invert", "embed")) == pytest.approx(added, rel=0.25)


def test_a_new_network_is_inverted_and_represents_all_sets_and_others_represent_only_its_set(finished):
    grown = planned(finished.url, networks=[*TINY["networks"], "small:wrn2@none"])
    flops = {probe.name: probe.flops for probe in grown.networks}
    by_stage = {stage.stage: stage.flops for stage in grown.stages}
    iterations = tiny().inversion.iterations
    assert by_stage["invert"] == 2 * 32 * iterations * flops["wrn2"]
    assert by_stage["embed"] == 32 * (5 * flops["wrn2"] + sum(flops.values()))


def test_a_run_that_is_half_done_is_planned_by_half(plan, tmp_path):
    run = new_run(str(tmp_path / "run"), tiny(networks=TINY["networks"][1:]))
    run_all(run, only=("train", "draw"))
    INVERT.prepare(run, INVERT.missing(run))
    for name, shard in [("resnet18", 0), ("resnet18", 1), ("shufflenet", 0)]:
        compute_unit(run, INVERT, name, shard)
    half = {stage.stage: stage for stage in planned(run.url, networks=TINY["networks"][1:]).stages}
    flops = {probe.name: probe.flops for probe in plan.networks}
    assert [half[stage].shards for stage in ("train", "draw", "invert", "embed")] == [0, 0, 5, 16]
    assert half["invert"].kept == 3
    assert half["invert"].flops == 2 * 8 * tiny().inversion.iterations * (
        2 * flops["resnet18"] + 3 * flops["shufflenet"]
    )


def files_below(store: Path) -> dict[str, int]:
    """Map the path of each file in a store to its bytes."""
    return {str(file.relative_to(store)): file.stat().st_size for file in store.rglob("*") if file.is_file()}


def test_a_planned_sweep_leaves_nothing_behind(tmp_path):
    planned(tmp_path / "runs" / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_device_of_a_run_is_as_fast_as_its_records_say(finished):
    device = device_from_run(finished)
    for name in finished.settings.names:
        records = [finished.record("invert", name, shard) for shard in range(4)]
        assert device.network_flops[name].mean == pytest.approx(
            sum(record.facts["flops"] for record in records) / sum(record.seconds for record in records)
        )
        flops = device.network_flops[name].mean
        assert device.seconds(name, flops).mean == pytest.approx(1)
    assert device.flops.low < device.flops.mean < device.flops.high
    assert finished.url in device.label


def test_the_speed_of_a_device_is_given_in_tflops():
    assert device_from_tflops("9").flops == Range(9e12, 9e12, 9e12)
    assert device_from_tflops("6-12").flops == Range(6e12, 9e12, 12e12)
    for text in ("", "fast", "12-6", "0", "-3", "nan", "1-inf"):
        with pytest.raises(
            SettingsError, match=r"^--tflops must be a number or a range of TFLOP/s, got .*; write 9 or 6-12$"
        ):
            device_from_tflops(text)


@pytest.mark.parametrize(
    ("blocks", "workers", "seconds"), [([], 2, 0), ([3.0], 4, 3), ([1, 1, 1], 2, 2), ([2, 1, 1, 3], 2, 5)]
)
def test_a_stage_ends_with_its_last_worker(blocks, workers, seconds):
    assert planning._makespan(blocks, workers) == seconds


def test_a_store_of_another_run_and_one_without_room_are_refused(finished, tmp_path, monkeypatch):
    with pytest.raises(StoreError, match=r"another protocol: inversion\.iterations is 5 there and 6 here"):
        planned(finished.url, inversion=TINY["inversion"] | {"iterations": 6})
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(
        StoreError, match=r"must have \d+\.\d GB free, got 0\.0 GB; use another --store, or fewer pairs$"
    ):
        planned(tmp_path / "run")


def test_a_file_in_the_place_of_a_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"^cannot write .*: no permission in .*; use another --store$"):
        check_writable(str(tmp_path / "file" / "run"))


def test_object_storage_is_asked_for_permission_and_left_as_it_was(object_storage, monkeypatch):
    assert check_writable(f"s3://{BUCKET}/planned") is None
    assert Files(f"s3://{BUCKET}/planned").names() == []
    new_run(f"s3://{BUCKET}/planned", tiny())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of somebody else")
    with pytest.raises(StoreError, match=r"denied|SignatureDoesNotMatch|signature"):
        check_writable(f"s3://{BUCKET}/planned")


def test_shards_that_are_longer_than_jobs_live_are_refused(plan):
    """They would be begun again for ever; but training goes on at its last epoch."""
    longest = {stage.stage: stage.longest.mean for stage in plan.stages if stage.stage != "train"}
    settings, flops = tiny(), max(probe.flops for probe in plan.networks)
    steps = settings.pairs.shard_size * settings.inversion.iterations
    assert longest["invert"] == pytest.approx(2 * flops * steps / DEVICE.flops.mean)
    require_time(plan, 1.01 * max(longest.values()))
    with pytest.raises(
        SettingsError,
        match=r"^a shard of \w+ must end within .* minutes, .* and takes about .*; give a longer walltime",
    ):
        require_time(plan, 0.99 * max(longest.values()))
    hours = [replace(stage, longest=Range(1e5, 1e5, 1e5)) if stage.stage == "train" else stage for stage in plan.stages]
    require_time(replace(plan, stages=hours), 1.01 * max(longest.values()))


def test_the_command_measures_and_prints(tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(TINY | {"networks": TINY["networks"][1:]}))

    command = [*NETSIM, "plan", "sweep.yaml", "--workers", "1", "--price", "2", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wall"]["low"] <= found["wall"]["mean"] <= found["wall"]["high"]
    hours = found["device_seconds"]["mean"] / 3600
    assert found["cost"]["mean"] == pytest.approx(2 * hours) and hours > 0
    for network in found["networks"]:
        assert min(network["iteration"]) > 0 and network["look"] > 0 and network["multiplications"] > 0
    assert not (tmp_path / "runs").exists()
