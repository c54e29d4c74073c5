"""The report of a run: one self-contained HTML page, heatmaps as PNG and SVG, numbers as CSV. C H W = image.

Everything comes from `Results` and `Gallery`, and the same input gives the same bytes. The page loads nothing and runs
no script.
"""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imsave

from netsim.errors import SettingsError, StoreError
from netsim.report.figures import dendrogram, heatmaps, layer_heatmaps, loss_curves, network_map
from netsim.report.svg import to_inline_svg, to_png, to_svg
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
    networks_csv,
    row_differences_csv,
    row_minus_column_csv,
    rows_csv,
    variances_csv,
    verdict_csv,
)
from netsim.results.controls import QUANTITIES
from netsim.results.findings import (
    all_well,
    asymmetry_line,
    biased_headline,
    ceiling_line,
    controlled,
    floor_mean,
    headline,
    intervals,
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
from netsim.results.layers import LayerSpec, load_layers
from netsim.results.matrices import SETS
from netsim.results.results import MAX_ABOVE, Results
from netsim.storage.files import Files
from netsim.store.layout import SUMMARY
from netsim.store.run import Run


def write_report(
    results: Results, gallery: Gallery, directory: str | os.PathLike[str], *, settings_yaml: str = ""
) -> dict[str, Path]:
    """Write the report into `directory`, which is created if missing.

    Everything is rendered before anything is written, and each file is replaced atomically, so that readers never see
    part of a file. The page is written last, so that a new page never refers to old tables.

    Returns
    -------
    dict
        File name -> path.

    Raises
    ------
    SettingsError
        If `directory` cannot be written.
    """
    return write_files(directory, render_report(results, gallery, settings_yaml))


def render_report(results: Results, gallery: Gallery, settings_yaml: str = "") -> dict[str, bytes]:
    """Render every file of the report; the page comes last."""
    figure = heatmaps(results)
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
        "heatmaps.svg": to_svg(figure).encode(),
        "heatmaps.png": to_png(figure, dpi=300),
        SUMMARY: summary(results).encode(),
        "report.html": render_page(results, gallery, settings_yaml).encode(),
    }


def write_layers(run: Run, spec: LayerSpec, directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Write heatmaps (SVG, PNG) and the table (CSV) of layers, named after the networks.

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
    similarities = load_layers(run, spec)
    panels = {name.replace("inverted/", "inverted through "): layers.cka for name, layers in similarities.items()}
    figure = layer_heatmaps(spec.layers, spec.networks, panels)
    first, second = spec.networks
    stem = f"layers-{first}-{second}-{spec.activations}-{spec.key[:6]}"  # the key differs for other layers
    return write_files(
        directory,
        {
            f"{stem}.svg": to_svg(figure).encode(),
            f"{stem}.png": to_png(figure, dpi=300),
            f"{stem}.csv": layers_csv(spec, similarities),
        },
    )


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
    probability=probability,
    probability_of=probability_of,
)

MAX_ASYMMETRIC = 36
"""Pairs in the table of asymmetry, largest first: all of nine networks."""


def render_page(results: Results, gallery: Gallery, settings_yaml: str = "") -> str:
    """Render the page, with figures as inline SVG in the page's colours and images as data URIs."""
    return templates.get_template("report.html.j2").render(
        results=results,
        verdict=verdict_lines(results),
        headline=headline(results),
        biased_headline=biased_headline(results),
        intervals=intervals(results),
        controlled=controlled(results),
        over_networks=list(filter(None, (line(results) for line in (network_intervals, ceiling_line, variance_line)))),
        asymmetry_line=asymmetry_line(results),
        asymmetric=asymmetric_pairs(results),
        warnings=warnings(results),
        figures={
            "unbiased": Markup(to_inline_svg(heatmaps(results, "unbiased"), "unbiased")),
            "biased": Markup(to_inline_svg(heatmaps(results, "biased"), "biased")),
            "losses": Markup(to_inline_svg(loss_curves(results), "losses")),
        },
        trees=cluster_figures(results),
        networks=[
            {
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
            for name in results.networks
        ],
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
        gallery=gallery_rows(results, gallery),
        gallery_networks=[name for name in results.networks if name in gallery.inverted],
        image_shape=gallery.seed.shape[1:],
        any_negative=any((results.cells(name) < 0).any() for name in SETS),
        settings_yaml=settings_yaml,
    )


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


def cluster_figures(results: Results) -> list[dict[str, object]]:
    """Draw clusters and map of either matrix, for the template; none of fewer than three networks."""
    figures: list[dict[str, object]] = []
    for name, (names, tree) in results.inference.clusters.items():
        title = f"{name.capitalize()} images"
        tree_svg = to_inline_svg(dendrogram(names, tree, title), f"clusters-{name}")
        map_svg = to_inline_svg(network_map(names, results.inference.maps[name][1], title), f"map-{name}")
        figures.append({"name": name, "tree": Markup(tree_svg), "map": Markup(map_svg)})
    return figures


def gallery_rows(results: Results, gallery: Gallery) -> list[dict[str, object]]:
    """List the gallery's rows for the template, one per pair; none if images have neither 1 nor 3 channels."""
    if gallery.seed.shape[1] not in (1, 3):
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
