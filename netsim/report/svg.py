"""Figures as bytes: SVG with text as text, PNG, WebP."""

import io
import re
import threading

import matplotlib
from matplotlib.figure import Figure

INK = "#1b1d1f"  # everything that is not data; `to_inline_svg` turns it into the text colour of the page


FONT = "'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif"  # DejaVu comes with matplotlib; the others are no wider


_saving = threading.Lock()  # savefig reads its SVG options from matplotlib's global settings


def to_svg(figure: Figure) -> str:
    """A complete SVG file with text as text: same figure, same characters; 200 kB holds two matrices of 25 networks."""
    return _slim(_save(figure, transparent=False))


def to_inline_svg(figure: Figure, prefix: str) -> str:
    """An `<svg>` element for inside a page: no background, the page's text colour, ids starting with `prefix`."""
    svg = _slim(_save(figure, transparent=True))
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_webp(figure: Figure, dpi: int = 72) -> bytes:
    """With some loss: photographs at a tenth of their size as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=dpi, pil_kwargs={"quality": 90})
    return buffer.getvalue()


def _save(figure: Figure, *, transparent: bool) -> str:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _saving, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "netsim"}):
        figure.savefig(buffer, format="svg", dpi=216, transparent=transparent, metadata=nothing)
    return buffer.getvalue().decode()


def _slim(svg: str) -> str:
    """Without what matplotlib repeats in each of the hundreds of words: the fonts, a rotation by nothing, a group."""
    svg = re.sub(r"font-family: [^;\"]*(; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r'<g id="text_\d+">\s*(<text [^>]*>[^<]*</text>)\s*</g>', r"\1", svg)
    svg = re.sub(r"\n\s*", " ", svg).replace("> <", ">\n<")
    svg = re.sub(r'( d="[^"]*?) +"', r'\1"', svg)
    return svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)
