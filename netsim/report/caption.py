"""The caption of the heatmaps as text and for LaTeX, and what to cite as BibTeX."""

import numpy as np

from netsim.report.heatmaps import beyond_limits
from netsim.results.findings import biased_headline, headline, number, unconverged_line
from netsim.results.matrices import SETS
from netsim.results.results import Results
from netsim.similarity.hsic import Estimator

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "–": "--",
}  # fmt: skip
"""Characters that LaTeX takes for something else, or that its fonts lack."""


def caption(results: Results, estimator: Estimator = "unbiased", *, limits: tuple[float, float], stacked: bool) -> str:
    """Describe the heatmaps for a reader of a paper: what rows, columns and colours are, and the means with errors.

    Parameters
    ----------
    results
        The results that they show.
    estimator
        The estimator of the figure.
    limits
        Ends of its colour scale.
    stacked
        True if the inverted matrix is below the natural one, not beside it.
    """
    places = ("top", "bottom") if stacked else ("left", "right")
    count = f"{len(results.networks):,} networks" if len(results.networks) > 1 else "a network"
    observers = f", and {len(results.observers):,} that only observe," if results.observers else ""
    means = headline(results) if estimator == "unbiased" else biased_headline(results)
    sentences = [
        f"Similarity of {count}{observers} on natural images ({places[0]}) and on images inverted through the network "
        f"of the row ({places[1]})",
        f"Each cell is the {estimator} linear CKA of the representations of the network of the row and of the observer "
        f"of the column, with colours from {_end(limits[0])} to {_end(limits[1])}{_beyond(results, estimator, limits)}",
        means,
        "± is one standard error",
        f"Images were inverted with the preset {results.preset} of netsim",
        *unconverged_line(results),
    ]
    return " ".join(f"{sentence}." for sentence in sentences)


def _beyond(results: Results, estimator: Estimator, limits: tuple[float, float]) -> str:
    """Say what colour values beyond the scale have, if any are."""
    beyond = beyond_limits(np.stack([results.cells(name, estimator) for name in SETS]), limits)
    ends = [f"below {_end(limits[0])}"] * beyond["low"] + [f"above {_end(limits[1])}"] * beyond["high"]
    return f" (values {' and '.join(ends)} have the colour of that end)" if ends else ""


def _end(value: float) -> str:
    """Format an end of the colour scale."""
    return f"{value:g}".replace("-", number(-1, 0)[0])


def to_latex(text: str) -> str:
    r"""Escape text for LaTeX.

    Examples
    --------
    >>> print(to_latex("95 % of a_b – c"))
    95 \% of a\_b -- c
    """
    return "".join(LATEX.get(character, character) for character in text)


def latex_figure(text: str, file: str, *, keys: tuple[str, ...], natural_size: bool) -> str:
    """Return a figure environment with a caption that cites `keys`.

    With `natural_size`, the figure is as wide as it was drawn, so that its fonts have their size; otherwise it is as
    wide as the column.
    """
    options = "" if natural_size else r"[width=\linewidth]"
    return "\n".join(
        [
            r"% Requires \usepackage{graphicx}.",
            r"\begin{figure}",
            r"  \centering",
            rf"  \includegraphics{options}{{{file}}}",
            rf"  \caption{{{to_latex(text)} Method: \cite{{{','.join(keys)}}}.}}",
            r"  \label{fig:netsim}",
            r"\end{figure}",
            "",
        ]
    )


def cited(estimator: Estimator) -> tuple[str, ...]:
    """List the keys of `bibtex` that a caption cites."""
    return ("jones2022", "kornblith2019", *(("song2012",) if estimator == "unbiased" else ()), "netsim")


def bibtex(version: str) -> str:
    """Return the entries of the paper of the method, of CKA, of its unbiased estimator, and of this tool."""
    return BIBTEX.replace("VERSION", version)


BIBTEX = """@inproceedings{jones2022,
  title = {If You've Trained One You've Trained Them All: Inter-Architecture Similarity Increases With Robustness},
  author = {Jones, Haydn T. and Springer, Jacob M. and Kenyon, Garrett T. and Moore, Juston S.},
  booktitle = {Proceedings of the Thirty-Eighth Conference on Uncertainty in Artificial Intelligence},
  series = {Proceedings of Machine Learning Research},
  volume = {180},
  pages = {928--937},
  publisher = {PMLR},
  year = {2022},
  url = {https://proceedings.mlr.press/v180/jones22a.html},
}

@inproceedings{kornblith2019,
  title = {Similarity of Neural Network Representations Revisited},
  author = {Kornblith, Simon and Norouzi, Mohammad and Lee, Honglak and Hinton, Geoffrey},
  booktitle = {Proceedings of the 36th International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {97},
  pages = {3519--3529},
  publisher = {PMLR},
  year = {2019},
  url = {https://proceedings.mlr.press/v97/kornblith19a.html},
}

@article{song2012,
  title = {Feature Selection via Dependence Maximization},
  author = {Song, Le and Smola, Alex and Gretton, Arthur and Bedo, Justin and Borgwardt, Karsten},
  journal = {Journal of Machine Learning Research},
  volume = {13},
  pages = {1393--1434},
  year = {2012},
  url = {https://jmlr.org/papers/v13/song12a.html},
}

@software{netsim,
  title = {netsim},
  author = {{netsim authors}},
  version = {VERSION},
  year = {2026},
  license = {MIT},
}
"""
"""Entries to cite; CITATION.cff has the first and the last, too."""
