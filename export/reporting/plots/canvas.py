"""Canvas, style and SVG output of all plots."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

# Matplotlib writes colors as hex; these are placeholders for the page's CSS variables, for light and dark mode.
INK, MUTED, RULE, PAPER, FIRST, SECOND = (f"#00000{digit}" for digit in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", FIRST: "first", SECOND: "second"}

WIDTH = 5.0  # inches: 360 units, so that ten-point text has ten pixels on a phone
LABEL_LENGTH = 18

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zoo",
    "grid.color": RULE,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width", "grid.linewidth"), 0.7),
    **dict.fromkeys(("font.size", "axes.labelsize", "legend.fontsize"), 10),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9.5),
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), 72),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon", "text.parse_math"), False),
}


@contextlib.contextmanager
def canvas(size: tuple[float, float]) -> Iterator[Figure]:
    """Provide an empty figure (inches) in the report's style, regardless of the user's matplotlibrc."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        # The browser's fonts draw the text; a glyph that matplotlib's font lacks only makes a width inexact.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=size, layout="constrained")


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Convert a figure to an `<svg>` element for a page: without namespaces, with unique ids and the page's colors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    used = set(re.findall(r"#([\w-]+)", " ".join(v for node in root.iter() for v in node.attrib.values())))
    for parent in root.iter():
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: value for key, value in parent.attrib.items()}
        _rewrite(parent.attrib, name, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def _rewrite(attributes: dict[str, str], name: str, used: set[str]) -> None:
    """Rewrite the attributes of an element: unreferenced ids are removed, others get a prefix."""
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    for key, value in attributes.items():
        for color, variable in VARIABLES.items():
            value = value.replace(color, f"var(--{variable})")
        value = f"{name}-{value}" if key == "id" else re.sub(r"(^|\()#", rf"\1#{name}-", value)
        attributes[key] = value


def freeze_layout(figure: Figure) -> None:
    """Fix the layout, so that elements placed in pixels afterwards keep their position."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def round_ticks(count: int, *, integer: bool = False) -> MaxNLocator:
    """Return a locator of about `count` round values."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=integer, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)


def percent_tick(fraction: float) -> str:
    """Format a fraction as a percentage, without trailing zeros."""
    return f"{100 * fraction:.4g}%"


def shorten(label: str, length: int = LABEL_LENGTH) -> str:
    """Return a label on one line, without characters that XML forbids, of at most `length` characters."""
    label = " ".join(re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", label).split())
    return label if len(label) <= length else label[: length - 1] + "…"
