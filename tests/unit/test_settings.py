"""Settings: strict, frozen, named by their content, with errors that give the value and what is valid."""

import pytest
import yaml

from netsim.errors import SettingsError
from netsim.settings import ALGORITHM, SweepSettings, load_settings, parse_settings, shipped_settings, shipped_sweeps
from netsim.store.run import flatten

NETWORKS = {"networks": ["small:vgg", "small:resnet18"]}


def test_published_recipe_is_the_default():
    inversion = parse_settings(NETWORKS).inversion
    assert (inversion.iterations, inversion.step_size, inversion.momentum, inversion.batch_size) == (
        2000,
        1 / 8,
        0.9,
        None,
    )
    assert (inversion.precision, inversion.stop_loss) == ("float32", None)


def test_digest_is_the_same_on_every_machine_and_version():
    assert parse_settings(NETWORKS).digest() == "73b2879076b46651"


def test_a_value_that_is_the_default_does_not_change_the_digest():
    """So a setting that is added leaves the stores that are there as they are."""
    plain = parse_settings(NETWORKS)
    assert parse_settings(NETWORKS | {"inversion": {"stored_as": "uint16"}}).digest() == plain.digest()
    assert parse_settings(plain.model_dump(mode="json")).digest() == plain.digest()


DEFAULTS_OF_ALGORITHM_4 = {
    "images.source": "fashion-mnist",
    "images.size": None,
    "images.unreadable": "stop",
    "images.class_order": "listed",
    "training.epochs": 8,
    "training.batch_size": 128,
    "training.learning_rate": 0.2,
    "training.weight_decay": 1e-2,
    "training.rng_seed": 0,
    "pairs.count": 512,
    "pairs.shard_size": 32,
    "pairs.rng_seed": 0,
    "inversion.preset": "published",
    "inversion.iterations": 2000,
    "inversion.step_size": 0.125,
    "inversion.momentum": 0.9,
    "inversion.stop_loss": None,
    "inversion.precision": "float32",
    "inversion.batch_size": None,
    "inversion.stored_as": "uint16",
    "inversion.tolerance": 0.1,
}
"""The digest does not cover defaults: one that changes must come with another ALGORITHM, and another table here."""


def test_no_default_changes_within_an_algorithm():
    found = flatten(parse_settings(NETWORKS).model_dump(mode="json"))
    assert ALGORITHM == 4 and found == DEFAULTS_OF_ALGORITHM_4 | {"networks": NETWORKS["networks"]}


def test_every_setting_changes_the_digest():
    plain = parse_settings(NETWORKS)
    changes = [
        {"networks": ["small:vgg", "small:resnet50"]},
        {"images": {"source": "folder:x"}},
        {"images": {"unreadable": "skip"}},
        {"training": {"epochs": 9}},
        {"pairs": {"count": 64}},
        {"pairs": {"rng_seed": 1}},
        {"inversion": {"iterations": 1999}},
        {"inversion": {"tolerance": 0.2}},
        {"inversion": {"stop_loss": 0.1}},
        {"inversion": {"precision": "auto"}},
        {"inversion": {"preset": "fast"}},
        {"inversion": {"stored_as": "float32"}},
    ]
    digests = {parse_settings(NETWORKS | change).digest() for change in changes}
    assert len(digests) == len(changes) and plain.digest() not in digests


def test_yaml_round_trip_keeps_the_digest():
    settings = parse_settings(NETWORKS)
    assert parse_settings(yaml.safe_load(settings.to_yaml())).digest() == settings.digest()


def test_settings_do_not_change_after_they_are_made():
    with pytest.raises(ValueError, match="frozen"):
        parse_settings(NETWORKS).pairs.count = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inversion": {"iteration": 5}}, r"no setting 'inversion.iteration'; did you mean 'iterations'\?"),
        ({"network": []}, r"no setting 'network'; did you mean 'networks'\?"),
        ({"inversion": {"iterations": -5}}, r"^settings: inversion.iterations must be greater than 0, got -5$"),
        ({"inversion": {"iterations": "many"}}, r"inversion.iterations must be a valid integer, got 'many'$"),
        ({"inversion": {"iterations": True}}, r"inversion.iterations must be a valid integer, got True$"),
        ({"pairs": {"count": 500}}, r"pairs: count must be a multiple of shard_size \(32\), got 500; use 480 or 512$"),
        (
            {"pairs": {"count": 32}},
            r"count must be at least 64, two shards, got 32; the standard error requires two shards, so",
        ),
        ({"pairs": {"count": 3}}, r"pairs.count must be greater than or equal to 4, got 3$"),
        (
            {"networks": ["small:vgg"]},
            r"networks must have at least 2 items after validation, not 1, got \['small:vgg'\]$",
        ),
        (
            {"networks": ["small:vgg", "torchvision:vgg"]},
            r"names must differ, got 'vgg' twice; rename one, as in 'other=small:vgg'$",
        ),
        # one file on some systems
        ({"networks": ["a=small:vgg", "A=small:vgg"]}, r"names must differ, got 'a' twice; .* 'other=small:vgg'$"),
        (
            {"networks": ["small:vgg", "a/b=small:vgg"]},
            r"a network name must consist of letters, digits and '._-', got 'a/b' in 'a/b=small:vgg'$",
        ),
        ({"networks": ["small:vgg", "..=small:vgg"]}, r"must consist of letters, digits and '._-', got '..' in"),
        ({"networks": ["small:vgg", "=small:vgg"]}, r"must consist of letters, digits and '._-', got '' in"),
        ({"inversion": {"preset": "fsat"}}, r"inversion.preset must be 'published' or 'fast', got 'fsat'$"),
        (
            {"inversion": {"preset": "fast", "momentum": 0.5}},
            r"inversion: momentum requires the preset published, got fast",
        ),
        ({"inversion": {"step_size": float("inf")}}, r"inversion.step_size must be a finite number, got inf$"),
    ],
)
def test_an_error_is_one_line_with_the_value_and_what_is_valid(values, message):
    with pytest.raises(SettingsError, match=message) as caught:
        parse_settings(NETWORKS | values)
    assert str(caught.value).count("\n") == 0


def test_missing_networks_are_named():
    with pytest.raises(SettingsError, match="the setting 'networks' is missing"):
        parse_settings({})


def test_a_given_name_is_not_part_of_the_reference():
    settings = parse_settings({"networks": ["a=small:vgg", "b=small:vgg@none"]})
    assert settings.names == ("a", "b")
    assert [settings.reference(name) for name in settings.names] == ["small:vgg", "small:vgg@none"]


def test_settings_come_from_a_file_with_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NETWORKS))
    settings = load_settings(
        str(path), ["pairs.count=64", "inversion.step_size=0.5", "networks=[small:vgg, small:wrn2]"]
    )
    assert settings.pairs.count == 64
    assert settings.inversion.step_size == 0.5
    assert settings.names == ("vgg", "wrn2")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pairs.count", "--set must be key=value, got 'pairs.count'"),
        ("pairs.cuont=4", "did you mean 'count'"),
        ("networks.x=4", "'networks' is a single setting, not a group of settings"),
        ("pairs.count=[", r"the value must be valid YAML, got '\['"),
        ("pairs.count=2024-13-45", r"--set pairs.count: the value must be valid YAML, got '2024-13-45'"),
        ("pairs.count=" + "[" * 3000, r"the value must be valid YAML, got '\[+\.\.\.\[+'$"),
    ],
)
def test_a_change_that_cannot_be_made_is_explained(tmp_path, override, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NETWORKS))
    with pytest.raises(SettingsError, match=message):
        load_settings(str(path), [override])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2024-13-45", "'2024-13-45' is no valid timestamp .*line 2, column 20"),
        ("!!int x", "'x' is no valid int"),
        ("!!timestamp x", "'x' is no valid timestamp"),
        ("!!bool maybe", "'maybe' is no valid bool"),
        ("9" * 5000, r"'9+\.\.\.9+' is no valid int"),
        ("0x" + "f" * 5000, "whole numbers must have at most 64 bits"),
        (str(2**63), "whole numbers must have at most 64 bits"),
        ("[" * 3000, "it is nested too deeply"),
        ("{a: 1, b: 2, a: 3}", "the key 'a' is given twice .*line 2, column 20"),
        ("{<<: {a: 1}, a: 2}", r"training.epochs must be a valid integer, got \{'a': 2\}"),  # not twice
        (str(2**63 - 1), None),
        ("0x10", None),
    ],
)
def test_a_value_that_yaml_cannot_hold_is_explained_in_one_line(tmp_path, value, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"networks: [small:vgg, small:wrn2]\ntraining: {{epochs: {value} }}\n")
    if message is None:
        assert load_settings(str(path)).training.epochs == int(value, 0)
        return
    with pytest.raises(SettingsError, match=message) as refused:
        load_settings(str(path))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


def test_a_setting_that_is_given_twice_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NETWORKS) + "pairs: {count: 64}\npairs: {count: 128}\n")
    with pytest.raises(SettingsError, match="the key 'pairs' is given twice"):
        load_settings(str(path))


def test_a_settings_file_that_cannot_be_read_is_explained(tmp_path):
    with pytest.raises(SettingsError, match=r"no settings file 'dmeo'.*did you mean 'demo'"):
        load_settings("dmeo")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(SettingsError, match="is not valid YAML"):
        load_settings(str(broken))
    broken.write_text("just words")
    with pytest.raises(SettingsError, match=r"must hold a mapping of settings .*, got str"):
        load_settings(str(broken))


def test_a_run_or_a_binary_file_is_not_a_settings_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert load_settings("demo") == shipped_settings("demo")  # a folder of that name is in nobody's way
    (tmp_path / "demo" / "zarr.json").write_text("{}")
    with pytest.raises(
        SettingsError, match="demo is a run, not a settings file; resume it with `netsim run --store demo`"
    ):
        load_settings("demo")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"binary must be UTF-8 text, got .*; save it as UTF-8"):
        load_settings("binary")


@pytest.mark.parametrize("number", ["1e-3", "1.0e-3", "0.001", ".1E-2"])
def test_numbers_may_be_written_as_everybody_writes_them(tmp_path, number):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(NETWORKS) + f"training: {{learning_rate: {number}}}")
    assert load_settings(str(path)).training.learning_rate == 0.001
    assert load_settings(str(path), [f"training.weight_decay={number}"]).training.weight_decay == 0.001


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_every_sweep_that_comes_with_netsim_is_valid(name):
    assert isinstance(load_settings(name), SweepSettings)
