"""Figures as SVG with selectable text, PNG and WebP."""

import io
import re
import threading

import matplotlib
from matplotlib.figure import Figure

INK = "#1b1d1f"
"""Colour of everything but data; `to_inline_svg` replaces it by the text colour of the page."""

FONT = "'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif"
"""Fonts of SVG text: DejaVu comes with matplotlib, the others are no wider."""

_saving = threading.Lock()
"""Held while saving, because savefig reads its SVG options from matplotlib's global settings."""


def to_svg(figure: Figure) -> str:
    """Render a complete SVG file with text as text, the same for the same figure; 200 kB for 25 networks."""
    return _slim(_save(figure, transparent=False))


def to_inline_svg(figure: Figure, prefix: str) -> str:
    """Render an `<svg>` element for a page: no background, the page's text colour, ids that start with `prefix`."""
    svg = _slim(_save(figure, transparent=True))
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    """Render a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_webp(figure: Figure, dpi: int = 72) -> bytes:
    """Render a WebP file, lossy: photographs take a tenth of their size as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=dpi, pil_kwargs={"quality": 90})
    return buffer.getvalue()


def _save(figure: Figure, *, transparent: bool) -> str:
    buffer = io.BytesIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _saving, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "netsim"}):
        figure.savefig(buffer, format="svg", dpi=216, transparent=transparent, metadata=no_metadata)
    return buffer.getvalue().decode()


def _slim(svg: str) -> str:
    """Remove what matplotlib repeats for each of hundreds of texts: fonts, rotation by 0, a group."""
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r'<g id="text_\d+">\s*(<text [^>]*>[^<]*</text>)\s*</g>', r"\1", svg)
    svg = re.sub(r"\n\s*", " ", svg).replace("> <", ">\n<")
    svg = re.sub(r'( d="[^"]*?) +"', r'\1"', svg)
    return svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)
