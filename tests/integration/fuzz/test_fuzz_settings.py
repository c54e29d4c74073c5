"""Settings files and overrides of any content: each is what plain YAML and pydantic make of it, or refused by name."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from flows.clusters.settings import KINDS, parse_cluster
from netsim.errors import NetsimError, SettingsError
from netsim.settings import SweepSettings, load_settings, parse_settings
from support.fuzz import inputs, mostly, new_folder, outcome
from support.sweeps import unlisted

BASE: dict[str, Any] = {"networks": ["small:vgg", "small:resnet18@none"], "pairs": {"count": 64, "shard_size": 8}}


def whole(low: int, high: int = 2**63 - 1) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def real(accept: Callable[[float], bool]) -> Callable[[Any], bool]:
    """Accept finite numbers for which `accept` is true."""

    def is_valid(value: Any) -> bool:
        return (whole(-(2**63))(value) or (type(value) is float and math.isfinite(value))) and accept(value)

    return is_valid


def optional(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accept(value)


def one_of(*texts: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and value in texts


FIELDS: dict[str, Callable[[Any], bool]] = {
    "images.source": lambda value: type(value) is str,
    "images.size": optional(whole(1)),
    "images.unreadable": one_of("stop", "skip"),
    "images.class_order": one_of("listed", "natural"),
    "training.epochs": whole(1),
    "training.batch_size": whole(2),
    "training.learning_rate": real(lambda value: value > 0),
    "training.weight_decay": real(lambda value: value >= 0),
    "training.rng_seed": whole(0, 2**32 - 1),
    "pairs.count": lambda value: whole(16)(value) and value % 8 == 0,
    "pairs.shard_size": lambda value: whole(4, 32)(value) and 64 % value == 0,
    "pairs.rng_seed": whole(0, 2**32 - 1),
    "inversion.preset": one_of("published", "fast"),
    "inversion.iterations": whole(1),
    "inversion.step_size": real(lambda value: value > 0),
    "inversion.momentum": real(lambda value: 0 <= value < 1),
    "inversion.stop_loss": optional(real(lambda value: value > 0)),
    "inversion.precision": one_of("float32", "tf32", "float16", "bfloat16", "auto"),
    "inversion.batch_size": optional(whole(1)),
    "inversion.stored_as": one_of("uint16", "float32"),
    "inversion.tolerance": real(lambda value: value > 0),
    "images": lambda value: type(value) is dict and not value,
    "training": lambda value: type(value) is dict and not value,
    "unknown": lambda value: False,
    "inversion.unknown": lambda value: False,
    "iterations": lambda value: False,
}

VALUES = (
    *(
        "1",
        "2",
        "8",
        "16",
        "64",
        "200",
        "0",
        "-1",
        "1.0",
        "0.5",
        "1e-3",
        "1e3",
        "1E5",
        ".5",
        "5.",
        "+1",
        "1_000",
        "0x10",
    ),
    *("010", "0o10", "0b11", "1:30", "24:00:00", "1:30.5", ".inf", "-.inf", ".nan", "NaN", "inf", "1e400", "1e-400"),
    *("4294967295", "4294967296", "9" * 30, "9" * 400, "9" * 5000, "0x" + "f" * 5000, "0." + "0" * 400 + "1"),
    *("true", "yes", "no", "on", "off", "y", "null", "~", "", "''", '"1"', "'0.5'", '"\\u0000"', '"\\e[2J"', '"\\n"'),
    *("stop", "skip", "fast", "published", "float16", "auto", "uint16", "natural", "listed", "folder:photos", "Stop"),
    *("2024-01-01", "2024-13-45", "2024-01-01 25:61:00", "2024-01-01T00:00:00Z", "12:60:61", "!!int x", "!!float x"),
    *("!!bool x", "!!timestamp x", "!!binary x", "!!null x", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a]", "!!seq x"),
    *(
        "!!str 1",
        "!!python/name:os.abort",
        "!unknown x",
        "[]",
        "[1]",
        "[1, [2, [3]]]",
        "{}",
        "{a: 1}",
        "{1: 2}",
        "{a: 1, a: 2}",
    ),
    *(
        "{[1]: 2}",
        "{null: 1}",
        "{size: 8, source: x}",
        "&a [*a]",
        "&a {b: *a}",
        "*missing",
        "&a",
        "@a",
        "`a",
        "%a",
        "|",
        ">",
    ),
    *(
        "- 1",
        "? 1",
        ": 1",
        "a: b",
        "a: b: c",
        "[",
        "}",
        '"',
        "'",
        "\t1",
        "1\t",
        "# x",
        "1 # x",
        "<<",
        "{<<: 3}",
        "{<<: [{a: 1}]}",
    ),
    *("é", "\x07", "\x1b[2J", "\ufeff1", "\u2028", "\ud7ff", "\U0001f600", "[" * 1500, "{a: " * 800, "x" * 5000),
)

BOUNDS = (
    *(
        -1,
        0,
        1,
        2,
        3,
        4,
        5,
        8,
        15,
        16,
        17,
        24,
        32,
        64,
        2**32 - 1,
        2**32,
        2**63 - 1,
        True,
        False,
        None,
        "",
        "1",
        [],
        {},
        [1],
    ),
    *(
        -0.5,
        -0.0,
        0.0,
        5e-324,
        0.5,
        0.999,
        1.0,
        1.5,
        1e308,
        math.inf,
        -math.inf,
        math.nan,
        "fast",
        "skip",
        "auto",
        "float32",
    ),
    *("published", "natural", "uint16", "stop", "listed", "bfloat16", "Stop", b"stop", (1,), {1}, date(2024, 1, 1)),
)


_values = st.one_of(st.sampled_from(VALUES), st.text(st.characters(codec="utf-8"), max_size=12))


@st.composite
def fields(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a field, and the text of a value in YAML, as often one that it takes as any other."""
    field = draw(st.sampled_from(sorted(FIELDS)))
    taken = [yaml.safe_dump(value).partition("\n")[0] for value in BOUNDS if FIELDS[field](value)]
    return field, draw(st.one_of(st.sampled_from(taken), _values) if taken else _values)


class Plain(yaml.SafeLoader):
    """PyYAML's loader, but 1e3 is a number and 1:30 is text, as in YAML 1.2, and keys are given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value]
        assert all(keys.count(key) == 1 for key in keys)
        return super().construct_mapping(node, deep)


def number_or_text(loader: Plain, node: yaml.ScalarNode) -> Any:
    if ":" in node.value:
        return node.value
    return (loader.construct_yaml_int if node.tag.endswith("int") else loader.construct_yaml_float)(node)


Plain.add_constructor("tag:yaml.org,2002:int", number_or_text)
Plain.add_constructor("tag:yaml.org,2002:float", number_or_text)
Plain.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9]+|[0-9]*[.][0-9]+|[0-9]+[.])[eE][-+]?[0-9]+"), None
)


def plain(text: str) -> Any:
    """Return the value of a YAML document, or Ellipsis if it has none."""
    try:
        return yaml.load(text, Loader=Plain)
    except Exception:
        return ...


def accepted(values: Any) -> SweepSettings | None:
    """Return what pydantic makes of values; None if it refuses them."""
    try:
        assert all(-(2**63) <= number < 2**63 for number in numbers_in(values))
        return SweepSettings.model_validate({key: values[key] for key in values if key != "cluster"})
    except Exception:
        return None


def numbers_in(values: Any, parents: tuple[int, ...] = ()) -> Iterator[int]:
    """Yield the whole numbers in nested values, which may contain themselves."""
    inside = [*values, *values.values()] if isinstance(values, dict) else values
    if isinstance(values, int):
        yield values
    elif isinstance(values, dict | list | tuple | set) and id(values) not in parents:
        for value in inside:
            yield from numbers_in(value, (*parents, id(values)))


def with_value(field: str, value: Any) -> dict[str, Any]:
    """Return the values of BASE with one field changed."""
    values = deepcopy(BASE)
    *parents, last = field.split(".")
    group = values
    for parent in parents:
        group = group.setdefault(parent, {})
    group[last] = value
    return values


def document(field: str, text: str) -> str:
    """Write BASE as YAML with the text of one value as it is."""
    return yaml.safe_dump(with_value(field, "the value")).replace("the value", text, 1)


def load(content: str | bytes, *overrides: str) -> SweepSettings | NetsimError:
    """Load settings from a file of this content."""
    with new_folder() as folder:
        path = folder / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
        result = outcome(lambda: load_settings(str(path), overrides), "mine.yaml", "--set")
        assert isinstance(result, SweepSettings | SettingsError)
        if isinstance(result, SweepSettings):
            path.write_text(result.to_yaml())
            again = load_settings(str(path))
            assert again == result and unlisted(again).id == unlisted(result).id
        return result


def check(result: SweepSettings | NetsimError, values: Any) -> None:
    """Compare a result with what pydantic makes of the values."""
    expected = accepted(values)
    assert isinstance(result, SweepSettings) == (expected is not None), (result, values)
    assert expected is None or result == expected


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_field_takes_what_its_rule_takes(field: str) -> None:
    """A rule that is written here once more, so that no bound moves by accident."""
    for value in BOUNDS:
        result = outcome(lambda value=value: parse_settings(with_value(field, value)), "settings")
        assert isinstance(result, SweepSettings) == (FIELDS[field](value)), value


@inputs(
    250,
    field=fields(),
    again=st.sampled_from(["", "", "", "\npairs: {count: 64}\n", "\nimages: {size: 8}\n"]),
)
def test_a_value_in_a_file_is_what_pydantic_makes_of_it_or_refused(field: tuple[str, str], again: str) -> None:
    name, text = field
    content = document(name, text) + again
    values, result = plain(content), load(content)
    check(result, values)
    value = plain(text)
    if not isinstance(value, dict | list | set | tuple) and values == with_value(name, value):
        assert isinstance(result, SweepSettings) == FIELDS[name](value)


@inputs(150, field=fields())
def test_a_value_on_the_command_line_is_what_it_is_in_a_file(field: tuple[str, str]) -> None:
    name, text = field
    value = plain(text)
    check(load(yaml.safe_dump(BASE), f"{name}={text}"), None if value is ... else with_value(name, value))


_keys = st.one_of(
    st.sampled_from(
        ["", ".", "a.", ".a", "pairs", "networks", "networks.0", "pairs.count.x", "cluster", "cluster.kind"]
    ),
    st.text(max_size=6),
)


@inputs(100, key=_keys, equals=st.sampled_from(["=", "=", "=", "", "==", ":", " = "]), text=_values)
def test_an_override_of_any_form_changes_one_setting_or_is_refused(key: str, equals: str, text: str) -> None:
    override = f"{key}{equals}{text}"
    result = load(yaml.safe_dump(BASE), override)
    if isinstance(result, SweepSettings):
        field, _, rest = override.partition("=")
        check(result, with_value(field, plain(rest)))


_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates())
_documents = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([*SweepSettings.model_fields, "cluster", "x", 1, None, True]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32")


@inputs(
    120,
    values=_documents,
    encoding=st.sampled_from([*ENCODINGS[:2] * 3, *ENCODINGS]),
    tail=st.sampled_from([b"", b"\xff", b"\0", b"\n--- {}", b"\n...", b"\n\t"]),
)
def test_a_document_of_any_content_is_refused_unless_pydantic_takes_it(values: Any, encoding: str, tail: bytes) -> None:
    content = yaml.safe_dump(values, allow_unicode=True).encode(encoding, errors="replace") + tail
    result = load(content)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        assert isinstance(result, SettingsError)
    else:
        check(result, plain(text))


REQUIRED: Mapping[str, dict[str, Any]] = {"scheduler": {"address": "tcp://a:1"}, "kubernetes": {"image": "netsim"}}
AMOUNTS = (
    "16GB",
    "1e400GB",
    "0",
    "-1GB",
    "GB",
    "16 GiB",
    "1e3",
    "nan",
    "inf",
    "04:00:00",
    "1-00:00:00",
    "99:99:99",
    "00:00:00",
)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a cluster with one field changed, as often to a value that it takes as to any other."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    field = draw(mostly(st.sampled_from(sorted(KINDS[kind].model_fields)), st.just("unknown")))
    usual = [1, 2, 16, None, "16GB", "1e3 MB", "04:00:00", "1-00:00:00", "tcp://a:1", "tls://a:1", ["a"], kind]
    texts = st.sampled_from([text for text in VALUES if len(text) < 1000]).map(plain).filter(lambda value: value != ...)
    value = draw(mostly(st.sampled_from(usual), st.one_of(texts, st.sampled_from(AMOUNTS), _documents), times=2))
    return {"kind": kind} | REQUIRED.get(kind, {}) | {field: value}


@inputs(150, values=clusters())
def test_a_cluster_is_what_pydantic_makes_of_it_or_refused(values: dict[str, Any]) -> None:
    try:
        expected = KINDS[values["kind"]].model_validate(values)
    except Exception:
        expected = None
    result = outcome(lambda: parse_cluster(values, origin="mine.yaml"), "mine.yaml")
    assert isinstance(result, SettingsError) == (expected is None)
    assert expected is None or result == expected


@pytest.mark.parametrize("values", [None, [], 3, "slurm", {1: 2}, {"kind": ["slurm"]}, {"kind": {}}, {"kind": None}])
def test_a_cluster_of_no_kind_is_refused(values: Any) -> None:
    assert isinstance(outcome(lambda: parse_cluster(values, origin="mine.yaml"), "mine.yaml"), SettingsError)
