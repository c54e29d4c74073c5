"""The page of a study of robustness: similarity by eps, its slopes, and robust against standard networks.

Everything comes from `Study`, and the same input gives the same bytes. The page loads nothing and runs no script.
"""

import os
from pathlib import Path

import numpy as np

from netsim.report.canvas import Figure
from netsim.report.drawings import Drawing
from netsim.report.figures import eps_curves
from netsim.report.heatmaps import layer_heatmaps
from netsim.report.page import templates, write_files
from netsim.report.tables import (
    study_asymmetry_csv,
    study_cross_csv,
    study_curves_csv,
    study_networks_csv,
    study_slopes_csv,
)
from netsim.results.matrices import SETS
from netsim.results.study import (
    BELOW,
    UNCONVERGED,
    Study,
    architecture_table,
    asymmetry_table,
    cross_table,
    level_table,
    study_asymmetry,
    study_headline,
    study_network_table,
    study_warnings,
)


def write_study(study: Study, directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Write the page, its figures and its tables into `directory`; the page comes last.

    Returns
    -------
    dict
        File name -> path.

    Raises
    ------
    SettingsError
        If `directory` cannot be written.
    """
    return write_files(directory, render_study(study))


def render_study(study: Study) -> dict[str, bytes]:
    """Render every file of the study; the page comes last."""
    pictures = {"curves": Drawing(curves_figure(study)), "cross": Drawing(cross_figure(study))}
    if measured := measures_figure(study):
        pictures["measures"] = Drawing(measured)
    return {
        "curves.csv": study_curves_csv(study),
        "slopes.csv": study_slopes_csv(study),
        "cross.csv": study_cross_csv(study),
        "asymmetry.csv": study_asymmetry_csv(study),
        "networks.csv": study_networks_csv(study),
        **{file: content for name, each in pictures.items() for file, content in each.files(name).items()},
        "study.html": _page(study, pictures).encode(),
    }


def curves_figure(study: Study) -> Figure:
    """Draw CKA of both matrices by eps."""
    curves = {f"{name.capitalize()} images": study.curves["cka", name] for name in SETS}
    return eps_curves(curves, label="unbiased CKA with other architectures", norm=study.norm)


def cross_figure(study: Study) -> Figure:
    """Draw CKA of both matrices by the eps of the network inverted through and of the observer."""
    levels = tuple(f"{eps:g}" for eps in study.eps)
    panels = {
        f"{name.capitalize()} images": np.array(
            [[each.value for each in row] for row in study.curves["cka", name].cross]
        )
        for name in SETS
    }
    return layer_heatmaps((levels, levels), ("eps, through", "eps, observer"), panels)


def measures_figure(study: Study) -> Figure | None:
    """Draw the measures of predictions on natural images by eps; None if there is none."""
    curves = {
        study.titles[name]: curve
        for (name, set_name), curve in study.curves.items()
        if set_name == "natural" and name not in ("cka", "seed_only")
    }
    return eps_curves(curves, label="value between other architectures", norm=study.norm) if curves else None


def _page(study: Study, pictures: dict[str, Drawing]) -> str:
    return templates.get_template("study.html.j2").render(
        study=study,
        headline=study_headline(study),
        asymmetry=study_asymmetry(study),
        warnings=study_warnings(study),
        figures={name: each.inline(name) for name, each in pictures.items()},
        levels=level_table(study),
        architectures={name: architecture_table(study, ("cka", name)) for name in SETS},
        cross={name: cross_table(study, ("cka", name)) for name in SETS},
        against=asymmetry_table(study),
        networks=study_network_table(study),
        below=BELOW,
        unconverged=UNCONVERGED,
    )
