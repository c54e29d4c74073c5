"""The protocol of a store: what its digest covers, and how differences are told."""

import pytest

from netsim.settings import parse_settings
from netsim.store.protocol import PRESENTATION, Protocol, flatten

SETTINGS = {"networks": ["small:vgg", "small:resnet18"]}


def protocol(content: str = "a", **changes) -> Protocol:
    return Protocol.of(parse_settings(SETTINGS | changes), content)


def test_the_digest_is_the_same_on_every_machine_and_version():
    assert protocol().digest() == "d2e2a32c07f34c4f"


@pytest.mark.parametrize(
    "changes",
    [
        {"networks": ["small:resnet18", "small:vgg"]},
        {"networks": ["small:wrn2", "small:wrn4"], "observers": ["small:vgg"]},
        {"training": {"epochs": 9}},
        {"pairs": {"count": 64}},
        {"pairs": {"until": {"half_width": 0.02}}},
        {"inversion": {"tolerance": 0.2}},
        {"inversion": {"stored_as": "uint16"}},
        {"images": {"source": "folder:/elsewhere", "unreadable": "skip"}},
    ],
)
def test_members_presentation_and_defaults_are_no_part_of_it(changes):
    """Images count by their content."""
    assert protocol(**changes) == protocol() and protocol(**changes).digest() == protocol().digest()


def test_every_setting_that_alters_a_value_is_part_of_it():
    changes = [
        {"pairs": {"shard_size": 64}},
        {"pairs": {"rng_seed": 1}},
        {"pairs": {"seed_labels": "any"}},
        {"pairs": {"seed_draw": 1}},
        {"inversion": {"iterations": 1999}},
        {"inversion": {"step_size": 0.25}},
        {"inversion": {"momentum": 0.5}},
        {"inversion": {"stop_loss": 0.1}},
        {"inversion": {"precision": "auto"}},
        {"inversion": {"batch_size": 7}},
        {"inversion": {"preset": "fast"}},
        {"inversion": {"stored_as": "float32"}},
    ]
    digests = {protocol(**change).digest() for change in changes} | {protocol("b").digest(), protocol().digest()}
    assert len(digests) == len(changes) + 2
    tried = {key for change in changes for key in change.get("inversion", {})}
    assert tried | set(PRESENTATION) == set(type(parse_settings(SETTINGS).inversion).model_fields)


def test_another_algorithm_is_another_protocol():
    assert protocol().model_copy(update={"algorithm": 99}).digest() != protocol().digest()


def test_differences_are_told_by_setting_with_both_values():
    other = protocol("b", inversion={"iterations": 5}, pairs={"rng_seed": 1})
    assert protocol().differences(other) == [
        "the images are others",
        "pairs.rng_seed is 0 there and 1 here",
        "inversion.iterations is 2000 there and 5 here",
    ]
    assert protocol().differences(protocol()) == []


def test_a_store_that_is_older_than_a_setting_has_its_default():
    older = protocol().model_dump(mode="json")
    del older["pairs"]["seed_draw"], older["inversion"]["stored_as"]
    again = Protocol.model_validate(older)
    assert again == protocol() and again.digest() == protocol().digest()
    assert again.differences(protocol(pairs={"seed_draw": 1})) == ["pairs.seed_draw is 0 there and 1 here"]


def test_nested_values_are_flattened():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}
