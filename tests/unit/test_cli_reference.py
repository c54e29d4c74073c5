"""The reference of settings has every setting, as the models check it."""

import json
import sys

import pytest

from flows.cli.main import main
from flows.cli.reference import Setting, list_settings
from flows.clusters.settings import KINDS
from netsim.settings import InversionSettings, NetworkSettings, PairSettings, SweepSettings, UntilSettings

SETTINGS = {setting.name: setting for setting in list_settings() if not setting.name.startswith("cluster.")}


def call(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["netsim", "settings", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.mark.parametrize(
    ("prefix", "model"),
    [
        ("inversion.", InversionSettings),
        ("pairs.", PairSettings),
        ("pairs.until.", UntilSettings),
        ("networks[].", NetworkSettings),
    ],
)
def test_every_setting_is_listed_with_its_default_and_description(prefix, model):
    for name, field in model.model_fields.items():
        setting = SETTINGS[f"{prefix}{name}"]
        assert setting.required == field.is_required() and setting.description == field.description
        if not field.is_required():
            assert setting.default == field.default


def test_every_group_of_a_sweep_and_every_kind_of_cluster_is_listed():
    assert {name.partition(".")[0].removesuffix("[]") for name in SETTINGS} == set(SweepSettings.model_fields)
    listed = [(setting.group, setting.name) for setting in list_settings()]
    assert all(
        (f"cluster of kind {kind}", f"cluster.{name}") in listed for kind in KINDS for name in KINDS[kind].model_fields
    )
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("name", "values", "unit"),
    [
        ("inversion.iterations", "whole number > 0", "steps"),
        ("inversion.momentum", "number ≥ 0, < 1", ""),
        ("inversion.preset", "published, fast", ""),
        ("inversion.stop_loss", "number > 0 or null", ""),
        ("pairs.shard_size", "whole number ≥ 4", "pairs"),
        ("images.size", "whole number > 0 or null", "pixels"),
        ("training.adversarial.random_start", "true or false", ""),
        ("networks", "list", ""),
    ],
)
def test_valid_values_and_units_are_told(name, values, unit):
    assert (SETTINGS[name].range, SETTINGS[name].unit) == (values, unit)


def test_a_group_or_a_setting_can_be_chosen(capsys, monkeypatch):
    code, out, _ = call(capsys, monkeypatch, "inversion", "pairs.count", "--json")
    shown = [Setting(**each).name for each in json.loads(out)]
    assert code == 0 and set(shown) == {
        *(f"inversion.{name}" for name in InversionSettings.model_fields),
        "pairs.count",
    }
    code, out, _ = call(capsys, monkeypatch, "pairs.count")
    assert code == 0 and "pairs.count  (default 512; whole number ≥ 4, in pairs)" in out and "multiple of shard" in out


def test_a_misspelt_name_is_one_clear_line(capsys, monkeypatch):
    code, out, err = call(capsys, monkeypatch, "inversoin")
    assert (code, out) == (2, "")
    assert err == "netsim: NAME must be a setting or a group of them, got 'inversoin'; did you mean 'inversion'?\n"
