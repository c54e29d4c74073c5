"""The second part of the identity campaign: places, photographs, roles, records, and who computes.

Each change is made to a copy of a finished sweep of photographs. It has three networks, one of which has its weights
in a file, an observer, and 12 pairs in 3 shards. The first part is tests/integration/test_identity.py;
docs/reference/identity.md has the tables of both.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from netsim.errors import NetsimError
from netsim.networks import load_network, weights_to_bytes
from netsim.settings import ALGORITHM, load_settings, parse_settings
from netsim.stages import inputs
from netsim.store.layout import digests_path
from netsim.store.records import sealed
from netsim.store.run import Run
from netsim.store.stages import AGGREGATE, EMBED, STAGES
from netsim.verify import verify
from support import grown
from support.grown import SIDE, colour, settings, write_photographs
from support.growth import effect_in_words
from support.sweeps import run_all, unit_of
from tasks.prepare import prepare

PAGE = Path(__file__).parents[2] / "docs/reference/identity.md"
OBSERVER = f"seer={colour(8)}"


@dataclass
class Lab:
    """A copy of a finished sweep: its settings, its store, and the files that the settings name."""

    folder: Path
    settings: dict[str, Any]
    monkeypatch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.store = str(self.folder / "run")

    @property
    def photographs(self) -> Path:
        return self.folder / "photos"

    def change(self, group: str, **values: Any) -> None:
        """Change settings of a group."""
        self.settings[group] = self.settings[group] | values

    def outcome(self) -> dict[str, int] | str:
        """Run the sweep; return the numbers of units that its stages computed, or the error."""
        try:
            run = prepare(parse_settings(deepcopy(self.settings)), self.store)
            return {stage: units for stage, units in run_all(run).items() if units}
        except NetsimError as error:
            return str(error)


@dataclass(frozen=True)
class Change:
    """A single change: its name and effect as the table has them, and what makes it.

    The effect is units by stage, or a part of the error that refuses the sweep.
    """

    name: str
    effect: dict[str, int] | str
    make: Callable[[Lab], Any]


NOTHING: dict[str, int] = {}
REPORT = {"report": 1}
MORE_PAIRS = {"draw": 1, "invert": 3, "embed": 5, "aggregate": 7, "control": 3, "report": 1}
ROW = {"invert": 3, "embed": 3, "aggregate": 1, "control": 1, "report": 1}
IMAGES = "the images are others"
CHANGED = r"the images of photos have changed since this run began, such as '\d+/\d.bmp'"
TAKEN = "is taken"
ALTERED = "made by another version of the algorithm"
REFUSALS = {
    IMAGES: "refused: the images are others",
    CHANGED: "refused when one of them is drawn: it has other bytes than when it was checked",
    TAKEN: "refused: the name is taken by another network",
    ALTERED: "refused: another algorithm",
}
"""Effects that are errors, in the words of the table."""


def each(*changes: Callable[[Lab], Any]) -> Callable[[Lab], None]:
    """Make several changes."""

    def make(lab: Lab) -> None:
        for change in changes:
            change(lab)

    return make


def more_pairs(lab: Lab) -> None:
    lab.change("pairs", count=16)


def of(group: str, **values: Any) -> Callable[[Lab], None]:
    return lambda lab: lab.change(group, **values)


# ---- photographs


def photographs_at(lab: Lab, place: str) -> None:
    lab.change("images", source=f"folder:{place}")


def move_photographs(lab: Lab) -> None:
    lab.photographs.rename(lab.folder / "moved")
    photographs_at(lab, str(lab.folder / "moved"))


def files(lab: Lab) -> list[Path]:
    return sorted(lab.photographs.rglob("*.bmp"))


def replace_photographs(lab: Lab) -> None:
    """Change the pixels of all photographs, but neither their sizes nor their times."""
    for path in files(lab):
        before, data = path.stat(), bytearray(path.read_bytes())
        data[-4:] = bytes(255 - value for value in data[-4:])
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def name_by_url(lab: Lab) -> None:
    photographs_at(lab, f"file://{lab.photographs}")


def write_text(lab: Lab) -> None:
    (lab.photographs / "10" / "a.txt").write_text("a", encoding="utf-8")


def rename_class(lab: Lab) -> None:
    (lab.photographs / "2").rename(lab.photographs / "two")


def remove_photograph(lab: Lab) -> None:
    files(lab)[-1].unlink()


def touch_photographs(lab: Lab) -> None:
    for path in files(lab):
        path.touch()


def lengthen_photograph(lab: Lab) -> None:
    path = files(lab)[0]
    path.write_bytes(path.read_bytes() + b"\0")


def remove_photographs(lab: Lab) -> None:
    """Remove photographs that the store was asked about before, in the place where they were."""
    assert lab.outcome() == NOTHING
    shutil.rmtree(lab.photographs)


# ---- roles and weights


def networks(*references: str, observers: tuple[str, ...] = ()) -> Callable[[Lab], None]:
    """List other networks; `{folder}` is that of the weights."""

    def make(lab: Lab) -> None:
        listed = [[each.format(folder=lab.folder) for each in some] for some in (references, observers)]
        lab.settings["networks"], lab.settings["observers"] = listed

    return make


INVERTED = "inverted/file/image/c/1/0/0/0"
FIRST, FILE, LAST = colour(5), f"file={colour(6)}@{{folder}}/w.safetensors", colour(7)


SWAPPED = f"colour7={FIRST}", FILE, f"colour5={LAST}"
OTHER = f"colour7={colour(9)}"


def move_weights(lab: Lab) -> None:
    (lab.folder / "w.safetensors").rename(lab.folder / "v.safetensors")
    networks(FIRST, FILE.replace("/w.", "/v."), LAST, observers=(OBSERVER,))(lab)


def other_activation(lab: Lab) -> None:
    lab.monkeypatch.setattr(grown, "ACTIVATION", nn.GELU)


# ---- where and by what it is computed


def settings_file(lab: Lab) -> None:
    """Read the settings from a file of another name that says where to execute, too."""
    path = lab.folder / "another-name.yaml"
    path.write_text(json.dumps(lab.settings | {"cluster": {"workers": 7}}), encoding="utf-8")
    lab.settings = load_settings(str(path)).model_dump(mode="json")


def threads(lab: Lab) -> None:
    torch.set_num_threads(2)
    lab.monkeypatch.setenv("NETSIM_DECODING_THREADS", "3")


def later_algorithm(lab: Lab) -> None:
    for module in ("netsim.store.protocol", "netsim.store.run"):
        lab.monkeypatch.setattr(f"{module}.ALGORITHM", ALGORITHM + 1)


def later_records(lab: Lab) -> None:
    """Let every record be of a later netsim, on another machine."""
    run, folder = Run.open(lab.store), Path(lab.store, "commits")
    for path in folder.rglob("*.json"):
        stage, _, name = path.parent.relative_to(folder).as_posix().partition("/")
        record = run.record(stage, name, int(path.stem))
        later = replace(record, versions=record.versions | {"netsim": "99.0"}, process="elsewhere:1")
        path.write_text(json.dumps(sealed(asdict(later))), encoding="utf-8")


def move_store(lab: Lab) -> None:
    Path(lab.store).rename(lab.folder / "moved")
    lab.store = str(lab.folder / "moved")


def store_at(spelling: str) -> Callable[[Lab], None]:
    """Name the store in another way."""

    def make(lab: Lab) -> None:
        (lab.folder / "link").symlink_to(lab.folder)
        lab.monkeypatch.chdir(lab.folder)
        lab.store = spelling.format(folder=lab.folder)

    return make


# ---- what is missing or damaged


def forget(stage: str, name: str, shard: int = 0) -> Callable[[Lab], None]:
    """Remove a record; of a goal that several networks share, the first."""

    def make(lab: Lab) -> None:
        run = Run.open(lab.store)
        (kind,) = [each for each in STAGES if each.name == stage]
        run.forget(*(unit_of(run, kind, name, shard) if kind in (EMBED, AGGREGATE) else (stage, name, shard)))

    return make


def damage(path: str) -> Callable[[Lab], None]:
    """Flip a bit of a file, and let `verify` find it."""

    def make(lab: Lab) -> None:
        target = Path(lab.store, path)
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 1
        target.write_bytes(data)
        assert verify(Run.open(lab.store), repair=True) != []

    return make


CAMPAIGN = (
    # photographs
    Change("the folder of photographs moved", NOTHING, move_photographs),
    Change("the folder named by a `file://` URL", NOTHING, name_by_url),
    Change("photographs touched", NOTHING, touch_photographs),
    Change("a text beside the photographs of a class", NOTHING, write_text),
    Change("`unreadable: skip`, where all are readable", NOTHING, of("images", unreadable="skip")),
    Change("`training`, where no network is trained", NOTHING, lambda lab: lab.settings.update(training={"epochs": 9})),
    Change("a photograph of another number of bytes", IMAGES, lengthen_photograph),
    Change("a photograph removed", IMAGES, remove_photograph),
    Change("the folder of a class renamed", IMAGES, rename_class),
    Change("classes in another order (`class_order`)", IMAGES, of("images", class_order="natural")),
    Change("photographs gone, all work done", NOTHING, remove_photographs),
    Change("photographs replaced by others of as many bytes", NOTHING, replace_photographs),
    Change("the same, and more pairs", CHANGED, each(replace_photographs, more_pairs)),
    # roles and weights
    Change("more pairs", MORE_PAIRS, more_pairs),
    Change("a file of weights moved, and more pairs", MORE_PAIRS, each(move_weights, more_pairs)),
    Change("an observer left out", REPORT, networks(FIRST, FILE, LAST)),
    Change("an observer becomes a network", ROW, networks(FIRST, FILE, LAST, OBSERVER)),
    Change("an observer and a network change places", ROW, networks(FIRST, FILE, OBSERVER, observers=(LAST,))),
    Change("two networks swap their names", REPORT, networks(*SWAPPED)),
    Change("another network in the name of one that is left out", TAKEN, networks(FIRST, FILE, OTHER)),
    Change("another activation in the code of a function", TAKEN, other_activation),
    # where and by what it is computed
    Change("another name of the settings file, and a group `cluster`", NOTHING, settings_file),
    Change("other numbers of threads", NOTHING, threads),
    Change("records of a later netsim on another machine", NOTHING, later_records),
    Change("the store moved", NOTHING, move_store),
    Change("the store named by a relative path", NOTHING, store_at("./run/")),
    Change("the store named by a `file://` URL", NOTHING, store_at("file://{folder}/run")),
    Change("the store named through a link", NOTHING, store_at("{folder}/link/run")),
    Change("a netsim with another algorithm", ALTERED, later_algorithm),
    # what is missing or damaged
    Change("the record of a check removed", {"check": 1}, forget("check", "test")),
    Change("the record of a network removed", {"train": 1}, forget("train", "colour5")),
    Change("the record of a shard of pairs removed", {"draw": 1}, forget("draw", "pairs", 1)),
    Change("the record of an inverted shard removed", {"invert": 1}, forget("invert", "file", 2)),
    Change("a record of representations removed", {"embed": 1}, forget("embed", "inverted/file", 1)),
    Change("a record of sums removed", {"aggregate": 1}, forget("aggregate", "inverted/file")),
    Change("a chunk of drawn images damaged, then `verify --repair`", {"draw": 1}, damage("images/target/c/1/0/0/0")),
    Change("a chunk of inverted images damaged, then `verify --repair`", {"invert": 1}, damage(INVERTED)),
    Change("hashes of photographs damaged, then `verify --repair`", {"check": 1}, damage(digests_path("test"))),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished_lab(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """Finish a sweep of photographs."""
    folder = tmp_path_factory.mktemp("finished") / "lab"
    source = write_photographs(folder / "photos")
    weights = load_network(colour(5).replace("colour5", "colour6"), input_shape=(3, SIDE, SIDE))
    weights.head.bias.data += 1
    (folder / "w.safetensors").write_bytes(weights_to_bytes(weights))
    chosen = settings(source, [FIRST, FILE.format(folder=folder), LAST], 12, [OBSERVER])
    chosen["images"]["size"] = SIDE
    run_all(prepare(parse_settings(deepcopy(chosen)), str(folder / "run"), "finished"))
    shutil.move(folder, folder.parent / "kept")  # no path that the store knows leads anywhere
    return folder, chosen


@pytest.fixture
def lab(finished_lab, tmp_path, monkeypatch) -> Iterator[Lab]:
    """Copy the finished sweep, its photographs and its weights."""
    folder, chosen = finished_lab
    shutil.copytree(folder.parent / "kept", tmp_path / "lab")
    for cached in (inputs.listed_images, inputs._readable):
        cached.cache_clear()
    yield Lab(tmp_path / "lab", json.loads(json.dumps(chosen).replace(str(folder), str(tmp_path / "lab"))), monkeypatch)
    torch.set_num_threads(1)


@pytest.mark.parametrize("change", CAMPAIGN, ids=lambda change: change.name)
def test_a_change_computes_what_its_label_says_and_nothing_else(change: Change, lab: Lab):
    change.make(lab)
    outcome = lab.outcome()
    if isinstance(change.effect, str):
        assert isinstance(outcome, str) and re.search(change.effect, outcome), outcome
    else:
        assert outcome == change.effect


def table() -> Iterator[str]:
    """Yield the lines of the second table in docs/reference/identity.md."""
    yield "| change | computed |"
    yield "|---|---|"
    for change in CAMPAIGN:
        effect = change.effect
        words = REFUSALS[effect] if isinstance(effect, str) else effect_in_words(effect)
        yield f"| {change.name} | {words} |"


def test_the_table_is_in_the_docs():
    assert len({change.name for change in CAMPAIGN}) == len(CAMPAIGN)
    assert "\n".join(table()) in PAGE.read_text(encoding="utf-8"), "put the lines of `table` on the page"
