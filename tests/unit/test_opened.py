"""A finished run opens as labelled arrays, tables and figures."""

import doctest
import html
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from netsim.errors import SettingsError, StoreError
from netsim.images import load_images
from netsim.opened import open_run
from netsim.report.tables import means_csv, networks_csv
from netsim.results.findings import headline
from netsim.results.results import load_results
from netsim.store import layout
from netsim.store.layout import representation_path
from support.sweeps import new_run, run_all, tiny


def test_a_finished_run_opens_as_labelled_arrays(finished):
    opened, results = open_run(finished.url), load_results(finished)
    cell = {"set": "inverted", "through": "resnet18", "observer": "vgg"}
    assert float(opened.similarity.cka_unbiased.sel(cell)) == results.cells("inverted")[1, 0]
    alike = np.diag(results.cells("natural", "biased")), np.diag(results.floor("natural"))
    assert (alike[0] == 1).all() and (alike[1] < 0.9).all()  # a floor is that of unrelated images
    images = opened.images.inverted.sel(through="vgg", pair=7)
    assert images.dtype == np.float32 and opened.images.seed.dtype == np.float32
    np.testing.assert_array_equal(images, layout.from_stored(finished.array("inverted/vgg/image")[7]))


def test_the_example_in_the_documentation_runs(finished, tmp_path, monkeypatch):
    """Its run is a finished one here, so that no line is skipped."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(Path(finished.url).resolve(), target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    (documented,) = doctest.DocTestFinder(recurse=False).find(open_run, "open_run")
    for example in documented.examples:
        example.options.pop(doctest.SKIP, None)
    assert doctest.DocTestRunner().run(documented) == doctest.TestResults(failed=0, attempted=9)


def test_a_run_that_is_not_finished_does_not_open(tmp_path):
    run = new_run(str(tmp_path / "run"), tiny())
    with pytest.raises(StoreError, match=r"is not finished: 3 of 3 shards of train are missing"):
        open_run(run.url)
    with pytest.raises(StoreError):
        open_run(tmp_path / "none")


def test_tables_are_those_of_the_report(finished):
    opened, results = open_run(finished.url), load_results(finished)
    for table, csv in ((opened.means, means_csv(results)), (opened.networks, networks_csv(results))):
        again = pd.read_csv(io.BytesIO(csv)).set_index(list(table.index.names))
        assert list(again.columns) == list(table.columns) and list(again.index) == list(table.index)
        numbers = again.select_dtypes(np.floating).columns
        np.testing.assert_array_equal(again[numbers], table[numbers].astype(np.float64))


def test_labels_are_the_classes_of_the_images_of_each_pair(finished):
    opened, test = open_run(finished.url), load_images("fashion-mnist")
    pixels = np.round(255 * opened.images.seed.values).astype(np.uint8)
    assert opened.labels.index.name == "pair" and list(opened.labels.columns) == ["seed", "target"]
    for pair, label in enumerate(opened.labels.seed):
        (index,) = np.flatnonzero((test.pixels == pixels[pair]).all(axis=(1, 2, 3)))
        assert label == test.classes[test.labels[index]]
    assert (opened.labels.seed != opened.labels.target).all()
    assert opened.files.shape == (32, 2) and opened.files.isna().all(axis=None)  # of fashion-mnist, which is no files


def test_files_are_those_that_images_were_read_from(tmp_path):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(256, size=(32, 32), dtype=np.uint8)).save(photos / name / f"{number}.png")
    settings = tiny(
        images={"source": f"folder:{photos}", "size": 32},
        networks=["small32:vgg@none", "small32:resnet18@none"],
        pairs={"count": 8, "shard_size": 4},
    )
    run = new_run(str(tmp_path / "run"), settings)
    run_all(run)
    opened = open_run(run.url)
    for role in ("seed", "target"):
        for pair, file in enumerate(opened.files[role]):
            assert file.startswith(opened.labels[role][pair])
            photo = np.asarray(Image.open(photos / file).convert("RGB")).transpose(2, 0, 1)
            np.testing.assert_array_equal(photo, np.round(255 * opened.images[role][pair]))
    assert not opened.files.target.duplicated().any()


def test_representations_are_those_of_the_store(finished):
    representations = open_run(finished.url).representations
    assert list(representations) == ["natural", "seed", "inverted/vgg", "inverted/resnet18", "inverted/shufflenet"]
    for set_name, arrays in representations.items():
        assert set(arrays.data_vars) == {"vgg", "resnet18", "shufflenet"}
        stored = finished.array(representation_path(set_name, "vgg"))[...]
        np.testing.assert_array_equal(arrays["vgg"], stored)
    with pytest.raises(KeyError):
        representations["inverted/none"]


def test_some_networks_are_shown_alone(finished):
    part = open_run(finished.url, networks=["shufflenet", "vgg"], pairs=32)
    assert list(part.networks.index) == ["shufflenet", "vgg"] == list(part.losses.through.values)
    assert len(part.labels) == len(part.files) == part.images.sizes["pair"] == 32
    stored = finished.array(representation_path("inverted/vgg", "shufflenet"))[...]
    assert list(part.representations) == ["natural", "seed", "inverted/shufflenet", "inverted/vgg"]
    np.testing.assert_array_equal(part.representations["inverted/vgg"]["shufflenet"], stored)
    np.testing.assert_array_equal(part.images.inverted.sel(through="vgg"), open_run(finished.url).images.inverted[0])
    with pytest.raises(SettingsError, match="pairs must be"):
        open_run(finished.url, pairs=64)
    with pytest.raises(SettingsError, match="no network 'vgh'"):
        open_run(finished.url, networks=["vgh"])


def test_figures_show_themselves_and_are_saved(finished, tmp_path):
    plot = open_run(finished.url).plot
    for figure in (
        plot.heatmaps(),
        plot.heatmaps("biased", order="name", limits=(0, 0.5), width="9cm"),
        plot.losses(),
        plot.gallery(2),
        plot.dendrogram(),
        plot.map(),
    ):
        assert figure._repr_svg_().startswith("<?xml")
    plot.map("natural").savefig(tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    assert "heatmaps(), losses(), gallery()" in repr(plot)
    with pytest.raises(SettingsError, match="set must be 'natural' or 'inverted', got 'seed'"):
        plot.map("seed")
    with pytest.raises(SettingsError, match="must have networks of 2 levels of eps or more, got 1"):
        plot.study(floor=0)


def test_a_run_shows_itself_in_a_line_and_in_a_notebook(finished):
    opened = open_run(finished.url)
    sentence = headline(opened.results)
    assert repr(opened) == f"<netsim run {finished.url}: 3 networks. {sentence}>"
    shown = opened._repr_html_()
    assert html.escape(sentence) in shown and "<svg" in shown and shown.count("<p><b>Warning</b>") > 0
