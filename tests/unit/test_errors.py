"""Errors: which can be caught as what, their exit codes, and the texts that their messages are made of."""

import pickle
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
    on_one_line,
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


def test_a_library_that_quotes_a_whole_file_is_cut():
    assert first_line(ValueError("x" * 500)) == "x" * 500
    assert first_line(ValueError("x" * 501)) == "x" * 500 + " ..."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, größer\nsecond line", "plain text, größer\nsecond line"),
        ("a\x1b[31mb", "a\\x1b[31mb"),  # a colour of the terminal
        ("a\rb\tc\x00", "a\\rb\\tc\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),  # reverses the direction of text
        ("\udcff.png", "\\udcff.png"),  # the name of a file that is not UTF-8
    ],
)
def test_control_characters_are_escaped_and_newlines_kept(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("kind", [NetsimError, DataError, RunError])
def test_every_message_can_be_printed_and_pickled(kind):
    error = kind("no class \udcff\x1b[2J\nHint.")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "no class \\udcff\\x1b[2J\nHint."
    assert str(kind()) == ""


def test_a_name_in_a_message_is_on_one_line():
    assert on_one_line("ant\n\x1b[2Jbee\udcff") == "ant\\n\\x1b[2Jbee\\udcff"


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
