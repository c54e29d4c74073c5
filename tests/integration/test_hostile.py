"""What somebody else's store, or settings file, can't do to whoever looks at it. SECURITY.md says what it can."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from netsim.errors import NetsimError, SettingsError, StoreError
from netsim.opened import open_run
from netsim.report.page import write_report
from netsim.results.gallery import gallery
from netsim.results.measured import load_measured
from netsim.results.results import load_results
from netsim.settings import load_settings
from netsim.store.quarantine import quarantine
from netsim.store.records import sealed
from netsim.store.run import Run
from netsim.store.status import status
from netsim.verify import verify
from support.sweeps import TINY, tiny, unlisted
from system.test_cli import call

ESCAPE = "\x1b]0;owned\x07\x1b[2J[blink]here[/nowhere]"


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Run:
    """A finished run that may be tampered with."""
    shutil.copytree(finished.url, tmp_path / "run")
    return Run.open(tmp_path / "run")


def edit(path: Path, change: Callable[[Any], object], *, seal: bool = False) -> None:
    """As somebody does who knows the format: a seal is no signature."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    content = sealed({key: value for key, value in content.items() if key != "seal"}) if seal else content
    path.write_text(json.dumps(content), encoding="utf-8")


def test_looking_at_a_store_imports_nothing_that_it_names(tmp_path, monkeypatch):
    """Nor does verifying it without a sample. Running it, or measuring its losses again, is running its settings."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = tiny(networks=["small:vgg@none", "odd=python:evil:network"])
    run = Run.create(str(tmp_path / "run"), unlisted(settings))
    record = Path(run.url, "commits/measure/evil:measure/inverted/odd/0123456789ab-4/00000.json")
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    status(run)
    load_measured(run)
    for look in (load_results, open_run):
        with pytest.raises(StoreError, match="is not finished"):
            look(run if look is load_results else run.url)
    verify(run, sample=0)
    assert "evil" not in sys.modules and not (tmp_path / "evil.ran").exists()
    verify(run, sample=8)
    assert (tmp_path / "evil.ran").exists()  # so it could have been


def test_a_store_says_nothing_that_a_terminal_obeys(copied, monkeypatch, capsys):
    def shown(*command: str) -> str:
        return "".join(call(monkeypatch, capsys, *command)[1:])

    quarantine(copied, ("invert", "vgg", 0), {"error": ESCAPE})
    aside = Path(copied.url, "aside/invert/vgg")
    (aside / "00001.json").write_text("[]")
    (aside.parents[1] / "00002.json").write_text("{}")
    record = Path(copied.url, f"commits/invert/{ESCAPE.partition('/')[0]}/00000.json")
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    told = shown("status", copied.url)
    assert r"invert vgg shard 0 is quarantined: \x1b]0;owned\x07\x1b[2J[blink]here[/nowhere]" in told
    assert "invert vgg shard 1 is quarantined: the note of its failure is damaged" in told
    told += shown("verify", copied.url, "--sample", "0")
    edit(Path(copied.url, "zarr.json"), lambda found: found["attributes"]["netsim"].update(format=1))
    edit(Path(copied.url, "zarr.json"), lambda found: found["attributes"]["netsim"]["versions"].update(netsim=ESCAPE))
    told += shown("results", copied.url)
    assert "unexpected" not in told and told.count("owned") == 4 and "\x1b" not in told and "\x07" not in told


def test_names_in_a_store_are_text_in_the_report(finished, tmp_path):
    bad = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    results = load_results(finished)
    summaries = {name: replace(one, reference=bad, weights_hash=bad) for name, one in results.summaries.items()}
    results = replace(results, summaries=summaries, provenance={bad: bad})
    pictures = gallery(finished)
    labels = {"seed_labels": [bad] * len(pictures.pairs), "target_labels": [bad] * len(pictures.pairs)}
    write_report(results, replace(pictures, **labels), tmp_path, settings_yaml=bad)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;") > len(summaries)
    assert "default-src 'none'" in page  # and no browser would run one


def test_a_document_that_claims_a_huge_array_is_told_and_not_read(copied):
    """Of a coordinate too, whose values are compared: they would fill the memory of any machine."""
    for path in ("inverted/vgg/iteration/zarr.json", "inverted/vgg/image/zarr.json"):
        edit(Path(copied.url, path), lambda found: found.update(shape=[*found["shape"][:-1], 10**15]))
    faults = {fault.name: fault.what for fault in verify(copied, sample=0) if fault.shard is None}
    assert faults == dict.fromkeys(
        ["inverted/vgg/image/zarr.json", "inverted/vgg/iteration/zarr.json"], "it differs from what the settings say"
    )


def test_values_that_do_not_fit_their_document_are_damaged(copied):
    document = Path(copied.url, "inverted/vgg/losses/zarr.json")
    edit(document, lambda found: found["chunk_grid"]["configuration"].update(chunk_shape=[10**6, 10**6]))
    with pytest.raises(StoreError, match=r"inverted/vgg/losses, shard 0, in .* is damaged"):
        load_results(Run.open(copied.url))


@pytest.mark.parametrize("how", ["a codec", "an old format"])
def test_nothing_in_a_store_is_unpickled(how, copied):
    """Zarr's second format has a filter for pickles; it is not read, and no codec of the third is run."""
    folder = Path(copied.url, "images/seed")
    if how == "a codec":
        edit(folder / "zarr.json", lambda found: found.update(codecs=[{"name": "numcodecs.pickle"}]))
    else:
        (folder / "zarr.json").unlink()
        old = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C", "fill_value": None}
        (folder / ".zarray").write_text(json.dumps(old | {"compressor": None, "filters": [{"id": "pickle"}]}))
    with pytest.raises(StoreError):
        Run.open(copied.url).array("images/seed")


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_a_record_does_not_lead_out_of_its_store(kind, copied, tmp_path):
    (tmp_path / "secret").write_text("secret")
    record = Path(copied.url, "commits/train/vgg/00000.json")
    edit(record, lambda found: found[kind].update({"../secret": "0" * 64}), seal=True)
    (fault,) = (fault for fault in verify(copied, sample=0, repair=True) if fault.stage == "train")
    assert "the commit record commits/train/vgg/00000.json" in fault.what  # nothing that it names was looked for
    assert (tmp_path / "secret").read_text() == "secret" and not record.exists()


def test_a_settings_file_of_aliases_is_refused_in_one_short_line(tmp_path):
    path = tmp_path / "laughs.yaml"
    doubled = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30))
    path.write_text(
        f"a0: &a0 [lol]\n{doubled}" + yaml.safe_dump(TINY).replace("networks:", "others:") + "networks: *a29\n"
    )
    with pytest.raises(SettingsError) as refused:
        load_settings(str(path))
    assert len(str(refused.value)) < 1000 and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.abort []", "a: !!python/name:os.abort"])
def test_settings_make_no_objects(text, tmp_path):
    path = tmp_path / "objects.yaml"
    path.write_text(text)
    with pytest.raises(NetsimError, match="is not valid YAML: could not determine a constructor"):
        load_settings(str(path))
