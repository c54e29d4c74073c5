"""Speed of workers follows from the commit records; FLOPs are those that torch and torchvision count."""

import time
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import ViT_B_32_Weights

from netsim.inversion.flops import forward_flops, peak_flops
from netsim.networks import load_network
from netsim.store.run import Run
from netsim.store.stages import INVERT
from netsim.store.throughput import PER_PAIR_STAGES, Tally, combined, throughput, throughput_table


def test_throughput_is_that_of_the_records(finished):
    """One process computed all shards; the twin adds its records up one by one."""
    by_stage = {worker.stage: worker for worker in throughput(finished)}
    assert list(by_stage) == ["draw", "invert", "embed"] == [stage.name for stage in PER_PAIR_STAGES]
    records = [finished.record("invert", name, shard) for name in finished.settings.names for shard in range(4)]
    invert, seconds = by_stage["invert"], sum(record.seconds for record in records)
    assert (invert.worker, invert.shards, invert.images) == (records[0].process, 12, 3 * 32)
    assert invert.rate == pytest.approx(96 / seconds)
    useful = sum(record.facts["flops"] for record in records)
    assert invert.share == pytest.approx(
        useful / sum(record.seconds * record.facts["peak_flops"] for record in records)
    )
    assert 0 < invert.share < 1
    assert by_stage["draw"].share is None and by_stage["embed"].share is None  # FLOPs are counted in `invert` only


def test_flops_of_an_inversion_are_two_forward_passes_per_iteration(finished):
    record = finished.record("invert", "vgg", 1)
    network = load_network("small:vgg@none", num_classes=10, input_shape=(1, 28, 28))
    assert record.facts["flops"] == 2 * forward_flops(network, torch.zeros(8, 1, 28, 28)) * 5


@pytest.mark.parametrize("reference", ["small:resnet18@none", "small:shufflenet@none", "small:densenet@none"])
def test_flops_are_those_that_torch_counts(reference):
    network, images = load_network(reference, num_classes=10, input_shape=(1, 28, 28)), torch.rand(2, 1, 28, 28)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.represent(images)
    assert forward_flops(network, images) == counter.get_total_flops() > 0


def test_flops_of_attention_are_those_that_torchvision_states():
    """torchvision counts multiplications, including the head's. torch cannot count its fused attention."""
    network = load_network("torchvision:vit_b_32@none", input_shape=(3, 224, 224))
    stated = 2e9 * ViT_B_32_Weights.IMAGENET1K_V1.meta["_ops"]
    head = 2 * network.width * network.num_classes
    assert forward_flops(network, torch.zeros(1, 3, 224, 224)) + head == pytest.approx(stated, rel=1e-3)


def test_the_peak_is_about_the_speed_of_one_product():
    """The peak is the fastest of many products; a single one, which other processes may slow, is not much faster."""
    matrix, started = torch.rand(512, 512), time.perf_counter()
    matrix @ matrix
    assert peak_flops("cpu", "float32") > 0.3 * 2 * 512**3 / (time.perf_counter() - started)


def test_a_tally_reads_each_record_once_and_follows_a_run_in_progress(finished, monkeypatch):
    read: list[int] = []
    records_of = Run.records_of

    def counted(run, units):
        units = list(units)
        read.extend(shard for _, _, shard in units)
        return records_of(run, units)

    monkeypatch.setattr(Run, "records_of", counted)
    tally = Tally(finished, INVERT)
    tally.read([("vgg", 0), ("vgg", 2)])
    assert tally.workers[0].images == 16
    tally.read([("vgg", 0), ("vgg", 1), ("vgg", 2)])
    assert tally.workers[0].images == 24 and sorted(read) == [0, 1, 2]


def test_the_table_has_the_mean_of_all_workers_and_then_each(finished):
    one = throughput(finished)[1]
    fast = replace(one, worker="a:1", shards=3, images=24, seconds=2.0, flops=3e9, possible=6e9)
    slow = replace(one, worker="b:2", shards=1, images=8, seconds=2.0, flops=1e9, possible=2e9)
    mean, first, second = throughput_table([fast, slow])
    assert (mean["worker"], mean["images"], mean["images/s"], mean["of peak"]) == ("2 workers, mean", "32", "8", "50 %")
    assert [first["images/s"], second["images/s"]] == ["12", "4"]
    assert throughput_table([fast, slow], limit=1)[-1]["worker"] == "and 1 more"
    assert throughput_table([]) == [] and len(throughput_table([fast])) == 1
    assert combined([fast, replace(slow, flops=None)]).share is None  # unknown for one, so unknown for both


def test_records_without_flops_give_a_rate_and_no_share(finished):
    one = throughput(finished)[0]
    assert one.share is None and throughput_table([one])[0]["of peak"] == "–"
    assert throughput_table([replace(one, seconds=0.0)])[0]["images/s"] == "–"
