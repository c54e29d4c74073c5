"""Probes: the memory, speed and properties of one network."""

import pytest
import torch

from netsim.inversion.steps import kept_bytes, update_rule_of
from netsim.networks import load_network
from netsim.planning import probe as probing
from netsim.planning.probe import Probe, ProbeRequest
from netsim.settings import InversionSettings
from support.sweeps import tiny


def test_memory_counts_what_steps_keep_of_images_in_between():
    kept = {
        preset: probing.probe(
            ProbeRequest(
                tiny(inversion={"preset": preset, "batch_size": 8}).model_dump(mode="json"), "resnet18", timed=False
            )
        ).device_bytes
        for preset in ("published", "fast")
    }
    images = torch.zeros(8, 1, 28, 28)
    more = kept_bytes(update_rule_of(InversionSettings(preset="fast")), images) - kept_bytes(
        update_rule_of(InversionSettings()), images
    )
    assert kept["fast"] - kept["published"] == more > 10 * images.nbytes


def test_shards_larger_than_what_is_compared_for_a_plan_are_compared_whole():
    settings = tiny(pairs={"count": 2400, "shard_size": 1200})
    assert (
        probing._multiplications_per_second(
            settings, load_network("small:vgg@none", num_classes=10, input_shape=(1, 28, 28))
        )
        > 0
    )


@pytest.fixture(scope="module")
def timed_probe() -> Probe:
    """A probe of a network that the sweep trains, with seconds."""
    return probing.probe(ProbeRequest(tiny(inversion={"batch_size": 2}).model_dump(mode="json"), "vgg"))


def test_every_cost_of_a_network_that_is_trained_is_measured(timed_probe):
    seconds = {name: getattr(timed_probe, name) for name in ("load", "read", "train", "ask", "look")}
    assert all(value > 0 for value in seconds.values()), seconds
    assert len(timed_probe.iteration) == 3 and max(timed_probe.iteration) > 0
    assert timed_probe.begin >= 0 and timed_probe.multiplications > 0


def test_without_times_a_probe_has_the_same_memory_and_flops(timed_probe):
    untimed = probing.probe(ProbeRequest(tiny(inversion={"batch_size": 2}).model_dump(mode="json"), "vgg", timed=False))
    for name in ("parameters", "width", "flops", "weight_bytes", "device_bytes", "batch_size", "asked"):
        assert getattr(untimed, name) == getattr(timed_probe, name)
    assert untimed.train == untimed.look == 0 and untimed.iteration == (0.0,)


def test_sizes_follow_from_the_weights(timed_probe):
    network = load_network("small:vgg@none", num_classes=10, input_shape=(1, 28, 28))
    assert timed_probe.weight_bytes == sum(tensor.nbytes for tensor in network.state_dict().values())
    assert timed_probe.device_bytes > timed_probe.weight_bytes


def test_bytes_of_many_images_are_extrapolated_from_one_and_two():
    bytes_of = probing._linear(lambda images: 100 + 7 * len(images), torch.zeros(1, 1, 2, 2))
    assert [bytes_of(count) for count in (1, 2, 32)] == [107, 114, 324]


def test_the_fewest_seconds_of_three_calls_count(monkeypatch):
    seconds = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(probing, "timed", lambda work: (next(seconds), work()))
    assert probing.best(lambda: None) == 1.0


@pytest.mark.parametrize(("platform", "size"), [("linux", 3 * 1024), ("darwin", 3)])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch, platform, size):
    monkeypatch.setattr(probing.sys, "platform", platform)
    monkeypatch.setattr(probing.resource, "getrusage", lambda _: type("Usage", (), {"ru_maxrss": 3}))
    assert probing.host_bytes() == size
