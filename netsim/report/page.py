"""The report of a run: one self-contained HTML page with its tables in it, figures as files, numbers as CSV.

Everything comes from `Results` and `Gallery`, and the same input gives the same bytes. The page loads nothing and runs
no script. C H W = image.
"""

import base64
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imsave

from netsim import DISTRIBUTION
from netsim.errors import SettingsError, StoreError
from netsim.report.caption import bibtex, caption, cited, latex_figure
from netsim.report.drawings import (
    Drawing,
    Layers,
    draw,
    draw_layers,
    estimators_of,
    figure_files,
    heatmaps_name,
    stem_of,
)
from netsim.report.figures import SHOWN_CHANNELS
from netsim.report.heatmaps import beyond_limits, is_stacked
from netsim.report.options import ReportOptions
from netsim.report.panels import panels_of
from netsim.report.svg import to_png
from netsim.report.tables import (
    asymmetry_csv,
    clusters_csv,
    columns_csv,
    controls_csv,
    layers_csv,
    losses_csv,
    map_csv,
    matrix_csv,
    means_csv,
    measures_csv,
    networks_csv,
    row_differences_csv,
    row_minus_column_csv,
    rows_csv,
    variances_csv,
    verdict_csv,
)
from netsim.results.controls import QUANTITIES
from netsim.results.findings import (
    MEASURED_TABLE,
    all_well,
    asymmetry_line,
    biased_headline,
    ceiling_line,
    controlled,
    floor_mean,
    headline,
    influence_warnings,
    interval_text,
    intervals,
    mean_digits,
    mean_text,
    measured_table,
    network_intervals,
    number,
    percent,
    probability,
    probability_of,
    summary,
    variance_line,
    verdict_lines,
    warnings,
    with_error,
)
from netsim.results.gallery import Gallery
from netsim.results.layers import LayerSpec, finished_layers, load_layers
from netsim.results.matrices import ESTIMATORS, SETS
from netsim.results.measured import Measured
from netsim.results.order import ordered, ordered_measures
from netsim.results.results import MAX_ABOVE, Results
from netsim.similarity.hsic import Estimator
from netsim.storage.files import Files
from netsim.store.layout import SUMMARY
from netsim.store.run import Run

OPTIONS = ReportOptions()
"""Options of a report unless its reader chooses others."""


def write_report(
    results: Results,
    gallery: Gallery,
    directory: str | os.PathLike[str],
    *,
    settings_yaml: str = "",
    measured: Mapping[str, Measured] | None = None,
    layers: Layers | None = None,
    options: ReportOptions = OPTIONS,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Write the report with every figure as SVG, PNG and PDF into `directory`, which is created if missing.

    Everything is rendered before anything is written, and each file is replaced atomically, so that readers never see
    part of a file. The page is written last, so that a new page never refers to old tables.

    Parameters
    ----------
    results, gallery
        The results of a run, and examples of its images.
    directory
        Folder of this machine.
    settings_yaml
        Settings of the run, which end the page.
    measured, layers
        Other measures and comparisons of layers that are part of the report; see `load_measured` and `stored_layers`.
    options
        How it is shown.
    note
        Called with a sentence for each figure that is wider than was chosen.

    Returns
    -------
    dict
        File name -> path.

    Raises
    ------
    SettingsError
        If `directory` cannot be written, or the heatmaps need more than the chosen width.
    """
    contents = render_report(
        results, gallery, settings_yaml, measured=measured, layers=layers, options=options, figures=True, note=note
    )
    return write_files(directory, contents)


def render_report(
    results: Results,
    gallery: Gallery,
    settings_yaml: str = "",
    *,
    measured: Mapping[str, Measured] | None = None,
    layers: Layers | None = None,
    options: ReportOptions = OPTIONS,
    figures: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, bytes]:
    """Render the files of the report, the page last: with every figure, or with the heatmaps alone as SVG and PNG."""
    measured, layers = measured or {}, layers or {}
    shown, measured = ordered(results, options.order), ordered_measures(measured, results, options.order)
    pictures = replace(gallery, inverted={n: gallery.inverted[n] for n in shown.networks if n in gallery.inverted})
    drawings = draw(shown, layers, options)
    texts = tables_of(shown, measured, layers) | caption_files(shown, options)
    if figures:
        files = figure_files(drawings, shown, pictures, layers, options, note=note)
    else:
        heatmap = drawings["heatmaps"]
        files = {"heatmaps.svg": heatmap.svg.encode(), "heatmaps.png": to_png(heatmap.figure, dpi=300)}
    page = render_page(
        shown, pictures, settings_yaml, drawings=drawings, files=texts, measured=measured, layers=layers,
        options=options,
    )  # fmt: skip
    return texts | files | {SUMMARY: summary(shown).encode(), "report.html": page.encode()}


def tables_of(results: Results, measured: Mapping[str, Measured], layers: Layers) -> dict[str, bytes]:
    """Render every table as CSV."""
    return {
        "natural.csv": matrix_csv(results, "natural"),
        "inverted.csv": matrix_csv(results, "inverted"),
        "controls.csv": controls_csv(results),
        "means.csv": means_csv(results),
        **({"verdict.csv": verdict_csv(results.verdict)} if results.verdict else {}),
        "variances.csv": variances_csv(results),
        "rows.csv": rows_csv(results),
        "columns.csv": columns_csv(results),
        "row_differences.csv": row_differences_csv(results),
        "asymmetry.csv": asymmetry_csv(results),
        "row_minus_column.csv": row_minus_column_csv(results),
        "clusters.csv": clusters_csv(results),
        "map.csv": map_csv(results),
        "losses.csv": losses_csv(results),
        "networks.csv": networks_csv(results),
        **({"measures.csv": measures_csv(results, measured)} if measured else {}),
        **{f"{stem}.csv": layers_csv(spec, similarities) for stem, (spec, similarities) in layers.items()},
    }


def caption_files(results: Results, options: ReportOptions) -> dict[str, bytes]:
    """Render the caption of the heatmaps as text and for LaTeX, and what it cites as BibTeX."""
    estimator, _ = estimators_of(options)
    stacked = is_stacked(results, options.points)
    text = caption(results, estimator, limits=options.limits, stacked=stacked)
    latex = latex_figure(text, "heatmaps.pdf", keys=cited(estimator), natural_size=options.width is not None)
    entries = bibtex(version(DISTRIBUTION))
    return {
        "caption.txt": f"{text}\n".encode(), "caption.tex": latex.encode(), "references.bib": entries.encode()
    }  # fmt: skip


def stored_layers(run: Run) -> Layers:
    """Read the comparisons of layers that are complete for the pairs and networks of the sweep.

    Raises
    ------
    StoreError
        If a shard is damaged.
    """
    return {stem_of(spec): (spec, load_layers(run, spec)) for spec in finished_layers(run).values()}


def write_layers(run: Run, spec: LayerSpec, directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Write heatmaps (SVG, PNG, PDF) and the table (CSV) of layers, named after the networks.

    Returns
    -------
    dict
        File name -> path.

    Raises
    ------
    StoreError
        If a shard is missing or damaged.
    SettingsError
        If `directory` cannot be written.
    """
    similarities, stem = load_layers(run, spec), stem_of(spec)
    files = Drawing(draw_layers(spec, similarities, OPTIONS)).files(stem)
    return write_files(directory, files | {f"{stem}.csv": layers_csv(spec, similarities)})


def write_files(directory: str | os.PathLike[str], contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write files into a folder of this machine, in order; return their paths. Raises SettingsError if it cannot."""
    try:
        files = Files(directory, setting="--output")
        if not files.local:
            raise SettingsError(f"--output must be a folder of this machine, got {files.url}; copy it from there")
        for name, content in contents.items():
            files.put(name, content)
    except StoreError as error:
        raise SettingsError(f"cannot write to {directory}: {error}; choose another folder") from error
    return {name: Path(files.place(name)) for name in contents}


# ---- the page ---------------------------------------------------------------------------------------------------

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(number=number, percent=percent, probability_of=probability_of)
templates.globals.update(
    all_well=all_well,
    with_error=with_error,
    floor_mean=floor_mean,
    interval_text=interval_text,
    mean_digits=mean_digits,
    mean_text=mean_text,
    probability=probability,
    probability_of=probability_of,
)

MAX_ASYMMETRIC = 36
"""Pairs in the table of asymmetry, largest first: all of nine networks."""


def render_page(
    results: Results,
    gallery: Gallery,
    settings_yaml: str = "",
    *,
    drawings: Mapping[str, Drawing] | None = None,
    files: Mapping[str, bytes] | None = None,
    measured: Mapping[str, Measured] | None = None,
    layers: Layers | None = None,
    options: ReportOptions = OPTIONS,
) -> str:
    """Render the page, with figures as inline SVG in the page's colours, and images and files as data URIs.

    `drawings` are those of `draw`, and `files` can be saved from the page; both are made if they are not given.
    """
    measured, layers = measured or {}, layers or {}
    drawings = draw(results, layers, options) if drawings is None else drawings
    files = tables_of(results, measured, layers) | caption_files(results, options) if files is None else files
    return templates.get_template("report.html.j2").render(
        results=results,
        title=options.title or _title(results),
        verdict=verdict_lines(results),
        headline=headline(results),
        biased_headline=biased_headline(results),
        intervals=intervals(results),
        controlled=controlled(results),
        over_networks=list(filter(None, (line(results) for line in (network_intervals, ceiling_line, variance_line)))),
        asymmetry_line=asymmetry_line(results),
        asymmetric=asymmetric_pairs(results),
        warnings=[*warnings(results), *influence_warnings(results, measured)],
        heatmaps={
            estimator: heatmap_panels(results, estimator, drawings[heatmaps_name(estimator, options)])
            for estimator in estimators_of(options)
        },
        limits=[number(end, 2) for end in options.limits],
        beyond=beyond_limits(np.stack([results.cells(n, e) for n in SETS for e in ESTIMATORS]), options.limits),
        losses=drawings["losses"].inline("losses"),
        trees=[
            {
                "name": name,
                "tree": drawings[f"clusters-{name}"].inline(f"clusters-{name}"),
                "map": drawings[f"map-{name}"].inline(f"map-{name}"),
            }
            for name in results.inference.clusters
        ],
        networks=[_network(results, name) for name in results.networks],
        max_above=MAX_ABOVE,
        controls=[(what, results.controls.mean(name)) for name, what in QUANTITIES.items()],
        observers=[
            {
                "summary": results.summaries[name],
                "natural": results.columns["natural", "unbiased"][name],
                "inverted": results.columns["inverted", "unbiased"][name],
            }
            for name in results.observers
        ],
        measured=measured_table(measured),
        measured_title=MEASURED_TABLE,
        measure_sources={each.title: each.source for each in measured.values()},
        layers=[
            {"spec": spec, "stem": stem, "figure": drawings[stem].inline(f"layers-{position}")}
            for position, (stem, (spec, _)) in enumerate(layers.items())
        ],
        gallery=gallery_rows(results, gallery),
        gallery_networks=[name for name in results.networks if name in gallery.inverted],
        image_shape=gallery.seed.shape[1:],
        files=[{"name": name, "what": what_is(name), "href": file_uri(name, content), "bytes": len(content)} for
               name, content in files.items()],
        texts={name: content.decode() for name, content in files.items() if name in CAPTION_FILES},
        settings_yaml=settings_yaml,
    )  # fmt: skip


def _title(results: Results) -> str:
    count = len(results.networks)
    return f"Similarity of {count:,} network{'' if count == 1 else 's'}, before and after inversion"


def _network(results: Results, name: str) -> dict[str, object]:
    """Describe a network that is inverted, for the template."""
    return {
        "summary": results.summaries[name],
        "loss": results.loss[name],
        "initial": float(np.median(results.loss[name].initial)),
        "distance": float(np.median(results.loss[name].distance)),
        "converged": results.converged[name],
        "above": results.loss[name].above(results.tolerance),
        "unreached": results.unreached[name],
        "fidelity": results.fidelity[name],
        "row_mean": results.rows["inverted", "unbiased"][name].value,
        "column_mean": results.columns["inverted", "unbiased"][name].value,
    }


def heatmap_panels(results: Results, estimator: Estimator, drawing: Drawing) -> dict[str, object]:
    """Prepare both heatmaps of an estimator for the template: beside each other, and apart."""
    panels = panels_of(drawing.figure, drawing.svg, results, estimator)
    apart = {name: {"svg": Markup(svg), "width": panels.widths[name]} for name, svg in panels.apart.items()}
    return {"whole": {"svg": Markup(panels.whole), "width": drawing.figure.points[0]}, "apart": apart}


# ---- files in the page

CAPTION_FILES = {
    "caption.txt": "caption of the heatmaps",
    "caption.tex": "figure with this caption for LaTeX",
    "references.bib": "what to cite, as BibTeX",
}
"""Files that the page shows as text, and what they are."""

TABLES = {
    "natural.csv": "every cell of natural images, both estimators, with errors and intervals",
    "inverted.csv": "every cell of inverted images, both estimators, with errors and intervals",
    "controls.csv": "controls of every cell",
    "means.csv": "means, ceilings, and both normalized, with errors over images and over networks",
    "verdict.csv": "what the sweep stopped for",
    "variances.csv": "parts of the variance of each mean",
    "rows.csv": "mean of every row",
    "columns.csv": "mean of every column",
    "row_differences.csv": "tests of rows against each other",
    "asymmetry.csv": "tests of mirrored cells",
    "row_minus_column.csv": "rows against columns",
    "clusters.csv": "clusters of networks",
    "map.csv": "places on the map",
    "losses.csv": "losses of every pair",
    "networks.csv": "networks, and how their inversions went",
    "measures.csv": "every cell by other measures, with errors and null values",
}
"""Tables of the report, and what they hold."""

EMBEDDED = 20_000_000
"""Most bytes of a file that is in the page: browsers save no `data:` URI of 32 MB."""


def what_is(name: str) -> str:
    """Describe a file of the report."""
    return (CAPTION_FILES | TABLES).get(name, "similarity of every two layers")


def file_uri(name: str, content: bytes) -> str:
    """Encode a file as a `data:` URI, or, of one that is too large, return its name: it lies beside the page."""
    if len(content) > EMBEDDED:
        return name
    kind = "csv" if name.endswith(".csv") else "plain"
    return f"data:text/{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}"


def asymmetric_pairs(results: Results) -> list[dict[str, object]]:
    """List the largest differences of mirrored cells of the inverted matrix, for the template."""
    asymmetry, names = results.inference.asymmetry, results.networks
    return [
        {
            "through": names[i],
            "observer": names[j],
            "difference": asymmetry.difference(i, j),
            "p_holm": asymmetry.adjusted(i, j),
        }
        for i, j in asymmetry.largest(MAX_ASYMMETRIC)
    ]


def gallery_rows(results: Results, gallery: Gallery) -> list[dict[str, object]]:
    """List the gallery's rows for the template, one per pair; none if images have neither 1 nor 3 channels."""
    if gallery.seed.shape[1] not in SHOWN_CHANNELS:
        return []
    rows: list[dict[str, object]] = []
    for index, pair in enumerate(gallery.pairs.tolist()):
        inverted = [
            {"name": name, "image": data_uri(gallery.inverted[name][index]), "loss": results.loss[name].final[pair]}
            for name in results.networks
            if name in gallery.inverted
        ]
        rows.append(
            {
                "pair": pair,
                "seed": data_uri(gallery.seed[index]),
                "target": data_uri(gallery.target[index]),
                "seed_label": gallery.seed_labels[index],
                "target_label": gallery.target_labels[index],
                "inverted": inverted,
            }
        )
    return rows


def data_uri(image: np.ndarray) -> str:
    """Encode an image as a `data:` URI: PNG up to 64 x 64 pixels, JPEG above.

    As PNG, nine networks at 224 x 224 would make a page of tens of MB.

    Parameters
    ----------
    image
        (C, H, W) with C = 1 or 3; uint8, or floats in [0, 1], which are clipped.
    """
    if image.dtype != np.uint8:
        image = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    pixels = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    small = max(pixels.shape[:2]) <= 64
    buffer = io.BytesIO()
    if small:
        imsave(buffer, np.ascontiguousarray(pixels), format="png")
    else:
        options = {"quality": 92, "subsampling": 0}
        imsave(buffer, np.ascontiguousarray(pixels), format="jpeg", pil_kwargs=options)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
