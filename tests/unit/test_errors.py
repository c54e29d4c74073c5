"""Errors: which can be caught as what, their exit codes, and the texts that their messages are made of."""

import subprocess
import sys

import pytest

from netsim.errors import (
    DataError,
    NetsimError,
    NetworkError,
    RunError,
    SettingsError,
    StoreError,
    TaskCancelled,
    UnreachableError,
    first_line,
    nearest,
    printable,
)


@pytest.mark.parametrize("error", [SettingsError, DataError, NetworkError, StoreError, UnreachableError, RunError])
def test_every_error_of_a_user_is_a_value_error(error):
    assert issubclass(error, NetsimError) and issubclass(error, ValueError)
    assert error.exit_code == (2 if error is SettingsError else 1)


def test_a_store_that_does_not_answer_is_told_from_one_that_is_wrong():
    assert issubclass(UnreachableError, StoreError)
    with pytest.raises(StoreError):
        raise UnreachableError("no answer")


def test_cancelling_is_not_swallowed_by_code_that_catches_exceptions():
    assert issubclass(TaskCancelled, BaseException) and not issubclass(TaskCancelled, Exception)


def test_the_first_line_of_an_error_is_all_that_a_message_repeats():
    assert first_line(ValueError("\n  one\ntwo")) == "one"
    assert first_line(KeyError()) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, größer\nsecond line", "plain text, größer\nsecond line"),
        ("a\x1b[31mb", "a\\x1b[31mb"),  # a colour of the terminal
        ("a\rb\tc\x00", "a\\rb\\tc\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),  # reverses the direction of text
    ],
)
def test_control_characters_are_escaped_and_newlines_kept(text, shown):
    assert printable(text) == shown


def test_a_similar_name_is_suggested():
    assert nearest("resnt18", ["vgg", "resnet18"]) == "; did you mean 'resnet18'?"


def test_without_a_similar_name_all_known_names_are_listed_in_order():
    assert nearest("zzz", ["vgg", "resnet18"]) == "; known are resnet18, vgg"


def test_a_long_list_of_names_is_cut():
    known = [f"name{number:04d}" for number in range(1520)]
    assert nearest("zzz", known).endswith("name0018, name0019 and 1,500 more")
    assert nearest("zzz", known[:20]).endswith("name0018, name0019")


@pytest.mark.parametrize("module", ["netsim", "netsim.errors", "netsim.references", "netsim.settings"])
def test_a_module_that_every_command_imports_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "zarr", "fsspec", "botocore", "s3fs", "prefect", "dask", "xarray", "matplotlib"}
    assert not heavy & set(done.stdout.split())
