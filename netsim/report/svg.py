"""Figures as files, the same for the same figure: SVG with selectable text, PDF with embedded fonts, PNG and WebP."""

import io
import re
import threading
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#1b1d1f"
"""Colour of everything but data; `inline` replaces it by the text colour of the page."""

FONT = "'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif"
"""Fonts of SVG text: DejaVu comes with matplotlib, the others are no wider."""

OPTIONS: Any = {
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "netsim",
    "pdf.fonttype": 42,  # TrueType, because publishers refuse Type 3
}
"""Settings of matplotlib that decide what is saved."""

_saving = threading.Lock()
"""Held while saving, because savefig reads its options from matplotlib's global settings."""


def to_svg(figure: Figure) -> str:
    """Render a complete SVG file with text as text; 200 kB for 25 networks."""
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    return _slim(_save(figure, "svg", dpi=216, metadata=no_metadata).decode())


def inline(svg: str, prefix: str) -> str:
    """Turn an SVG file into an element for a page: no background, the page's text colour, ids that start with `prefix`.

    A second drawing would take as long as the first.
    """
    svg = re.sub(r'<g id="patch_1">.*?</g>\s*', "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def to_pdf(figure: Figure, title: str = "") -> bytes:
    """Render a PDF file with embedded fonts, for LaTeX; `title` is that of the document."""
    metadata = dict.fromkeys(("Creator", "Producer", "CreationDate")) | ({"Title": title} if title else {})
    return _save(figure, "pdf", dpi=300, metadata=metadata)


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    """Render a PNG file."""
    return _save(figure, "png", dpi=dpi, metadata={"Software": None})


def to_webp(figure: Figure, dpi: int = 72) -> bytes:
    """Render a WebP file, lossy: photographs take a tenth of their size as PNG."""
    return _save(figure, "webp", dpi=dpi, pil_kwargs={"quality": 90})


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with _saving, matplotlib.rc_context(OPTIONS):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _slim(svg: str) -> str:
    """Remove what matplotlib repeats for each of hundreds of texts: fonts, rotation by 0, a group."""
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r'<g id="text_\d+">\s*(<text [^>]*>[^<]*</text>)\s*</g>', r"\1", svg)
    svg = re.sub(r"\n\s*", " ", svg).replace("> <", ">\n<")
    svg = re.sub(r'( d="[^"]*?) +"', r'\1"', svg)
    return svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)
