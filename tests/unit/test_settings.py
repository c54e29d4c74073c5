"""Settings: strict, frozen, named by their content, with errors that give the value and what is valid."""

from typing import Any

import pytest
import yaml

from netsim.errors import SettingsError
from netsim.settings import (
    ALGORITHM,
    AdversarialSettings,
    SweepSettings,
    load_settings,
    locate,
    parse_settings,
    shipped_settings,
    shipped_sweeps,
)
from netsim.store.protocol import flatten

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


DEFAULTS_OF_ALGORITHM_5: dict[str, Any] = {
    "images.source": "fashion-mnist",
    "images.size": None,
    "images.unreadable": "stop",
    "images.class_order": "listed",
    "observers": [],
    "training.epochs": 8,
    "training.batch_size": 128,
    "training.learning_rate": 0.2,
    "training.weight_decay": 1e-2,
    "training.rng_seed": 0,
    "training.augmentation": "mirror",
    "training.adversarial": None,
    "training.precision": "float32",
    "pairs.count": 512,
    "pairs.until": None,
    "pairs.shard_size": 32,
    "pairs.rng_seed": 0,
    "pairs.seed_labels": "other",
    "pairs.seed_draw": 0,
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
"""The digest of the protocol does not cover defaults: one that changes must come with another ALGORITHM and table."""


def test_no_default_changes_within_an_algorithm():
    defaults = flatten(parse_settings(NETWORKS).model_dump(mode="json"))
    assert ALGORITHM == 5 and defaults == DEFAULTS_OF_ALGORITHM_5 | {"networks": NETWORKS["networks"]}


def test_yaml_round_trip_keeps_the_settings():
    network = {"reference": "small:resnet18", "name": "{epochs}x", "grid": {"epochs": [1, 2]}, "group": "r"}
    settings = parse_settings(NETWORKS | {"networks": ["small:vgg", network], "observers": ["small:vgg@none"]} | OTHER)
    again = parse_settings(yaml.safe_load(settings.to_yaml()))
    assert again == settings and again.members == settings.members


OTHER = {"observers": ["seer=small:vgg@none"]}


def members(*networks, **others):
    """Return name, reference, training seed and group of the networks of some settings."""
    settings = parse_settings({"networks": list(networks)} | others)
    return [
        (member.name, member.reference, member.training and member.training.rng_seed, member.group)
        for member in settings.members
    ]


def test_a_network_has_the_training_of_the_sweep_with_its_own_changes():
    changed = {"reference": "small:vgg", "name": "late", "training": {"rng_seed": 3, "epochs": 2}, "group": "vggs"}
    settings = parse_settings({"networks": ["small:vgg", changed, "a=small:vgg@none"], "training": {"batch_size": 64}})
    vgg, late, given = settings.members
    assert vgg.training and late.training
    assert (vgg.training.rng_seed, vgg.training.epochs, vgg.training.batch_size) == (0, 8, 64)
    assert (late.training.rng_seed, late.training.epochs, late.training.batch_size) == (3, 2, 64)
    assert given.training is None
    assert [member.group for member in settings.members] == ["vgg", "vggs", "a"]


def test_a_grid_over_eps_trains_standard_and_robust_networks_whose_replicates_differ_in_the_seed_only():
    attack = {"norm": "linf", "steps": 5}
    grid = {"eps": [0, 0.5], "rng_seed": [1, 2]}
    settings = parse_settings(
        {"networks": [{"reference": "small:vgg", "training": {"adversarial": attack}, "grid": grid}]}
    )
    standard, _, robust, other = settings.members
    assert [member.name for member in settings.members] == [
        f"vgg-eps{eps}-rng_seed{seed}" for eps in (0, 0.5) for seed in (1, 2)
    ]
    assert standard.training.adversarial is None and standard.training.rng_seed == 1
    assert robust.training.adversarial == AdversarialSettings(norm="linf", eps=0.5, steps=5)
    assert robust.training.adversarial.length == pytest.approx(0.2)
    assert standard.group == "vgg-eps0" and robust.group == other.group == "vgg-eps0.5"
    default = parse_settings({"networks": [{"reference": "small:vgg", "grid": {"eps": [0, 0.5]}}]}).members[1]
    assert default.training.adversarial == AdversarialSettings(eps=0.5)


def test_a_grid_is_a_network_for_each_combination():
    grid = {"reference": "small:{arch}", "grid": {"arch": ["vgg", "resnet18"], "rng_seed": [0, 1]}}
    assert members(grid) == [
        ("vgg-rng_seed0", "small:vgg", 0, "vgg"),
        ("vgg-rng_seed1", "small:vgg", 1, "vgg"),
        ("resnet18-rng_seed0", "small:resnet18", 0, "resnet18"),
        ("resnet18-rng_seed1", "small:resnet18", 1, "resnet18"),
    ]
    named = {"reference": "small:vgg", "name": "v{rng_seed}", "grid": {"rng_seed": [5, 6]}, "group": "all"}
    assert members(named) == [("v5", "small:vgg", 5, "all"), ("v6", "small:vgg", 6, "all")]
    assert members({"reference": "x=small:vgg"}, "small:vgg") == [
        ("x", "small:vgg", 0, "x"),
        ("vgg", "small:vgg", 0, "vgg"),
    ]


def test_networks_that_only_look_are_apart():
    settings = parse_settings(NETWORKS | OTHER)
    assert settings.names == ("vgg", "resnet18") and [member.name for member in settings.observing] == ["seer"]


def test_a_changed_copy_has_the_networks_of_the_change():
    settings = parse_settings(NETWORKS | OTHER)
    assert settings.names == ("vgg", "resnet18")
    changed = settings.model_copy(update={"networks": ("small:wrn2", "small:vgg"), "observers": ()})
    assert changed.names == ("wrn2", "vgg") and changed.observing == ()
    longer = settings.model_copy(update={"training": settings.training.model_copy(update={"epochs": 9})})
    assert longer.members[0].training.epochs == 9 and settings.members[0].training.epochs == 8


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
            r"networks must be two or more, got 1$",
        ),
        (
            {"networks": ["small:vgg", "torchvision:vgg"]},
            r"names must differ, got 'vgg' twice; rename one, as in 'other=small:vgg'$",
        ),
        # one file on some systems
        ({"networks": ["a=small:vgg", "A=small:vgg"]}, r"names must differ, got 'a' twice; .* 'other=small:vgg'$"),
        (
            {"networks": ["small:vgg", "a/b=small:vgg"]},
            r"a network name must consist of letters, digits and '._-', got 'a/b' in 'small:vgg'$",
        ),
        (
            {"networks": [{"referenc": "small:vgg"}, "small:vgg"]},
            r"no setting 'networks.0.referenc'; did you mean 'reference'",
        ),
        ({"networks": [3, "small:vgg"]}, r"networks.0 must be text or a mapping with `reference`, got 3$"),
        ({"networks": ["small:vgg", None]}, r"networks.1 must be text or a mapping with `reference`, got None$"),
        ({"networks": [{"name": "x"}, "small:vgg"]}, r"the setting 'networks.0.reference' is missing"),
        ({"networks": ["small:vgg", {"reference": 3}]}, r"networks.1.reference must be text, got 3$"),
        ({"networks": "small:vgg"}, r"networks must be a list, got 'small:vgg'$"),
        ({"networks": []}, r"networks must not be empty, got \[\]$"),
        ({"observers": ["a=small:vgg", {"referenc": "x"}]}, r"no setting 'observers.1.referenc'; did you mean 'ref"),
        ({"observers": [7]}, r"observers.0 must be text or a mapping with `reference`, got 7$"),
        ({"observer": ["small:wrn2"]}, r"no setting 'observer'; did you mean 'observers'\?$"),
        ({"pairs": 3}, r"pairs must be a mapping, got 3\. Write `pairs: \{count: 3\}`$"),
        ({"pairs": {"until": {}}}, r"pairs.until: must have either half_width or differ, got neither; write {"),
        ({"pairs": {"until": {"half_width": 0.1, "differ": ["a", "b"]}}}, r"either half_width or differ, got both; "),
        ({"pairs": {"until": {"half_width": 0}}}, r"pairs.until.half_width must be greater than 0, got 0$"),
        ({"pairs": {"until": {"half_with": 0.1}}}, r"no setting 'pairs.until.half_with'; did you mean 'half_width'\?$"),
        ({"pairs": {"until": 0.02}}, r"pairs.until must be a mapping, got 0.02$"),
        ({"pairs": {"until": {"differ": ["vgg"]}}}, r"differ must be two different networks, got \['vgg'\]$"),
        ({"pairs": {"until": {"differ": ["vgg", "vgg"]}}}, r"differ must be two different networks, got \['vgg', 'vgg"),
        ({"pairs": {"until": {"half_width": 0.1, "delta": 0.1}}}, r"delta requires differ, got 0.1; remove delta$"),
        ({"pairs": {"until": {"differ": ["a", "b"], "of": "a"}}}, r"of requires half_width, got 'a'; remove of$"),
        (
            {"pairs": {"until": {"half_width": 0.1}, "count": 128}},
            r"pairs: until requires at least 8 shards, the first look, got 4; raise count \(128\) or lower shard_size",
        ),
        ({"pairs": {"until": {"half_width": 0.1, "of": "vg"}}}, r"pairs.until: no network 'vg' is inverted; did you"),
        (
            {
                "pairs": {"until": {"differ": ["a", "b"]}},
                "networks": [{"reference": "small:vgg", "name": name, "group": "g"} for name in "ab"],
            },
            r"pairs.until.differ must be two networks of different groups, got a and b of g: replicates are in no mean",
        ),
        ({"pairs": {1: 2}}, r"the keys of pairs must be text, got 1$"),
        (
            {"networks": ["small:vgg", {"reference": "small:wrn2", "training": {1: 2}}]},
            r"the keys of networks.1.training must be text, got 1$",
        ),
        (
            {"networks": ["small:vgg", {"reference": "small:wrn2", "grid": {"rng_seed": 3}}]},
            r"networks.1.grid.rng_seed must be a list, got 3$",
        ),
        (
            {"networks": ["small:vgg", {"reference": "small:wrn2", "grid": {"rng_seed": ["x"]}}]},
            r"the training of wrn2-rng_seedx: rng_seed must be a valid integer, got 'x'$",
        ),
        (
            {"networks": ["small:vgg", {"reference": "small:wrn2", "name": "x", "grid": {"rng_seed": [1, 2]}}]},
            r"networks of a grid must have different names, got 'x' 2 times; put {rng_seed} into name, as in "
            r"'x-{rng_seed}'$",
        ),
        (
            {"networks": ["small:wrn2", {"reference": "small:vgg@{file}", "grid": {"file": ["a", "b", "c"]}}]},
            r"got 'vgg' 3 times; put {file} into name, as in '{file}'$",
        ),
        (
            {
                "networks": [
                    {"reference": "small:vgg", "name": "{epochs}x", "grid": {"epochs": [1, 2], "rng_seed": [1, 2]}}
                ]
            },
            r"got '1x' 2 times; put {rng_seed} into name, as in '{epochs}x-{rng_seed}'$",
        ),
        (
            {"networks": [{"reference": "small:vgg", "name": "{epochs}x", "grid": {"epochs": [1, 1]}}]},
            r"the grid must have each value of 'epochs' once, got 1 2 times",
        ),
        (
            {"networks": ["small:vgg", {"reference": "small:wrn2@none", "grid": {"rng_seed": [1]}}]},
            r"wrn2-rng_seed1 must have no training of its own, got \{'rng_seed': 1\}: it comes with weights$",
        ),
        (
            {"networks": [{"reference": "small:vgg", "training": {"epoch": 1}}, "small:resnet18"]},
            r"the training of vgg: no setting 'epoch'; did you mean 'epochs'\?$",
        ),
        (
            {"networks": [{"reference": "small:vgg", "training": {"epochs": 0}}, "small:resnet18"]},
            r"the training of vgg: epochs must be greater than 0, got 0$",
        ),
        (
            {"networks": [{"reference": "small:vgg@none", "training": {"epochs": 1}}, "small:resnet18"]},
            r"vgg must have no training of its own, got \{'epochs': 1\}: it comes with weights$",
        ),
        (
            {"networks": [{"reference": "small:vgg", "grid": {"rngseed": [1]}}, "small:resnet18"]},
            r"the grid's key 'rngseed' must be a setting of training or occur in reference; did you mean 'rng_seed'",
        ),
        (
            {"networks": [{"reference": "small:vgg", "grid": {"eps": [0, 1], "norm": ["l2", "linf"]}}]},
            r"must make different networks, got vgg-eps0-normlinf equal to vgg-eps0-norml2; remove a value",
        ),
        (
            {"networks": [{"reference": "small:vgg", "grid": {"rng_seed": [1, 1]}}]},
            r"the grid must have each value of 'rng_seed' once, got 1 2 times",
        ),
        (
            NETWORKS | {"training": {"adversarial": {"norm": "l2", "eps": 0}}},
            r"training.adversarial.eps must be greater than 0, got 0",
        ),
        (
            NETWORKS | {"training": {"adversarial": {"steps": 3}}},
            r"the setting 'training.adversarial.eps' is missing",
        ),
        (
            NETWORKS | {"training": {"adversarial": {"eps": 1, "step": 3}}},
            r"no setting 'training.adversarial.step'; did you mean 'steps'",
        ),
        (
            {"networks": [{"reference": "small:vgg", "grid": {"steps": [1, 2]}}]},
            r"the training of vgg-steps1: the setting 'adversarial.eps' is missing",
        ),
        (
            {"networks": [{"reference": "small:vgg", "grid": {"rng_seed": []}}, "small:vgg"]},
            r"the grid must have a value",
        ),
        ({"networks": NETWORKS["networks"], "observers": ["small:vgg@none"]}, r"names must differ, got 'vgg' twice"),
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
    assert [member.reference for member in settings.members] == ["small:vgg", "small:vgg@none"]


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


def test_paths_in_a_settings_file_start_from_its_folder_and_changes_do_not(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/nets_of_a_lab.py").touch()
    networks = ["small:vgg@w.pt", {"reference": "python:nets_of_a_lab:{size}", "grid": {"size": ["small", "large"]}}]
    text = yaml.safe_dump({"images": {"source": "folder:photos"}, "networks": networks, "observers": ["small:wrn2@w"]})
    (tmp_path / "lab/s.yaml").write_text(text)
    folder = f"{tmp_path}/lab"
    monkeypatch.chdir(tmp_path)
    for path in ("lab/s.yaml", f"{folder}/s.yaml"):
        settings = load_settings(path)
        assert settings.images.source == f"folder:{folder}/photos"
        references = [member.reference for member in (*settings.members, *settings.observing)]
        assert references == [
            f"small:vgg@{folder}/w.pt",
            f"python:{folder}/nets_of_a_lab:small",
            f"python:{folder}/nets_of_a_lab:large",
            f"small:wrn2@{folder}/w",
        ]
        assert settings.names == ("vgg", "small", "large")
    assert load_settings("lab/s.yaml", ["images.source=folder:x"]).images.source == "folder:x"
    assert load_settings("cifar10").images.source == "folder:data/cifar10"  # is deployed to other machines


@pytest.mark.parametrize(
    "values", [{}, {"images": 1, "networks": 2}, {"images": {"source": 1}, "networks": [1, None, {"reference": 2}, {}]}]
)
def test_what_is_no_path_is_left_for_the_validation(values):
    assert locate(values, "/lab") == values
