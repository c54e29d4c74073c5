"""A caption says what the figure shows, with the numbers of the page, in text and in LaTeX."""

import re
from pathlib import Path

import pytest
import yaml

from netsim.report.caption import bibtex, caption, cited, latex_figure, to_latex
from netsim.results.findings import biased_headline, headline
from netsim.results.results import Results
from support.results import make_results, renamed, with_inverted, with_loss

CITATION = yaml.safe_load((Path(__file__).parents[3] / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results(3, n=64)


def test_a_caption_has_the_sentence_of_the_page_and_of_the_terminal(results):
    assert f" {headline(results)}. " in caption(results, limits=(0, 1), stacked=False)
    biased = caption(results, "biased", limits=(0, 1), stacked=False)
    assert f" {biased_headline(results)}. " in biased and "the biased linear CKA" in biased


def test_a_caption_says_where_panels_are_and_what_colours_mean(results):
    text = caption(with_inverted(results, 0, 1, -0.2), limits=(-0.1, 0.5), stacked=True)
    assert "natural images (top)" in text and "of the row (bottom)" in text
    assert "colours from −0.1 to 0.5 (values below −0.1 and above 0.5 have the colour of that end)" in text
    assert "colours from 0 to 1. " in caption(results, limits=(0, 1), stacked=False)


def test_networks_that_did_not_converge_are_named(results):
    slow = with_loss(results, "resnext", final=results.loss["resnext"].final + 1)
    assert "of the images of resnext have a final relative loss above 0.05" in caption(
        slow, limits=(0, 1), stacked=False
    )
    assert "loss" not in caption(results, limits=(0, 1), stacked=False)


def test_latex_takes_no_character_for_its_own(results):
    name = "a_b%&#${}~^\\c"
    odd = renamed(results, "resnext", name)
    odd = with_loss(odd, name, final=odd.loss[name].final + 1)  # so that the caption names it
    text = to_latex(caption(odd, limits=(0, 1), stacked=False))
    assert r"a\_b\%\&\#\$\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}c" in text
    assert not re.search(r"(?<!\\)[%&#_]", text) and text.isascii()
    figure = latex_figure("x", "heatmaps.pdf", keys=("one", "two"), natural_size=True)
    assert r"\includegraphics{heatmaps.pdf}" in figure and r"\cite{one,two}" in figure
    assert figure.count("{") == figure.count("}")


def test_everything_that_a_caption_cites_is_in_the_bibliography():
    keys = re.findall(r"^@\w+\{(\w+),$", bibtex("1.2.3"), re.MULTILINE)
    assert set(cited("unbiased")) == set(keys) and set(cited("biased")) == set(keys) - {"song2012"}


def test_the_bibliography_agrees_with_the_citation_file():
    (paper,), entries = CITATION["references"], bibtex(CITATION["version"])
    for text in (paper["title"], str(paper["volume"]), f"{paper['start']}--{paper['end']}", paper["url"]):
        assert f"{{{text}}}" in entries
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    assert f"author = {{{authors}}}" in entries
    assert f"version = {{{CITATION['version']}}},\n  year = {{{CITATION['date-released'][:4]}}}" in entries
