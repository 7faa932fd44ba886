"""The parts of an SVG picture: boxes, arrows and labels."""

from __future__ import annotations

import html
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ember_xcs._graph.drawing.palette import Palette

__all__ = [
    "FONT", "arrow", "arrow_heads", "box", "clean", "label", "shortened", "text_width",
]  # fmt: skip

FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

_LONGEST = 32


def clean(text: str) -> str:
    """Returns a text on one line, without what XML cannot contain."""
    return "".join(c if c.isprintable() else " " for c in text)


def shortened(text: str) -> str:
    """Returns a text that fits into a box."""
    line = clean(text)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def text_width(text: str, size: float) -> float:
    """Returns about how wide a text is, in pixels: no font is at hand to be asked."""
    return sum(size if unicodedata.east_asian_width(c) in "WF" else size * 0.6 for c in text)


def arrow_heads(palette: Palette) -> str:
    """Returns the definition of the arrow head."""
    return (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0.5 8 4 0 7.5z" fill="{palette.line}"/>'
        "</marker></defs>"
    )


def box(
    kind: str,
    frame: tuple[float, float, float, float],
    caption: tuple[str, str],
    *,
    full_title: str,
    is_output: bool,
    state: str,
    palette: Palette,
) -> str:
    """Returns a box with its title and the line below it.

    Args:
        kind: The kind of the node, or ``"input"``; it decides the shape and the colours.
        frame: Left, top, width and height, in pixels.
        caption: The title and the line below it.
        full_title: What is shown on hovering.
        is_output: Whether its outline is thick.
        state: ``"failed"`` and ``"skipped"`` are shown.
        palette: The colours.
    """
    x, y, width, height = frame
    fill, outline = palette.kinds[kind]
    colour = palette.failed if state == "failed" else outline
    dashes = ' stroke-dasharray="5 4"' if state == "skipped" or kind == "input" else ""
    stroke = 2.8 if is_output or state == "failed" else 1.4
    look = f'fill="{fill}" stroke="{colour}" stroke-width="{stroke}"{dashes}'
    muted = palette.failed if state == "failed" else palette.muted
    faded = ' opacity="0.6"' if state == "skipped" else ""
    title, below = (html.escape(line) for line in caption)
    centre = x + width / 2
    return "\n".join(
        [
            f'<g class="{kind}"{faded}><title>{html.escape(clean(full_title))}</title>',
            _outline(kind, frame, look, colour),
            _text(centre, y + 20, 13, palette.text, title, ' font-weight="600"'),
            _text(centre, y + height - 10, 11, muted, below),
            "</g>",
        ]
    )


def _outline(kind: str, frame: tuple[float, float, float, float], look: str, colour: str) -> str:
    x, y, width, height = frame
    if kind == "host":
        right, bottom, middle, cut = x + width, y + height, y + height / 2, 11
        corners = (
            f"{x:.1f},{middle:.1f} {x + cut:.1f},{y:.1f} {right - cut:.1f},{y:.1f} "
            f"{right:.1f},{middle:.1f} {right - cut:.1f},{bottom:.1f} {x + cut:.1f},{bottom:.1f}"
        )
        return f'<polygon points="{corners}" stroke-linejoin="round" {look}/>'
    radius = {"pure": 8.0, "composite": 2.0}.get(kind, height / 2)
    outer = _rectangle(x, y, width, height, radius, look)
    if kind != "composite":
        return outer
    inner = f'fill="none" stroke="{colour}" stroke-width="1"'
    return outer + _rectangle(x + 4, y + 4, width - 8, height - 8, 1, inner)


def _rectangle(x: float, y: float, width: float, height: float, radius: float, look: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{radius:.0f}" {look}/>'
    )


def _text(x: float, y: float, size: int, colour: str, text: str, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" '
        f'fill="{colour}"{more}>{text}</text>'
    )


def arrow(
    points: Sequence[tuple[float, float]], horizontal: bool, is_input: bool, palette: Palette
) -> str:
    """Returns an arrow that leaves, passes and enters layers at right angles.

    Args:
        points: Where it leaves and enters each layer, in turn.
        horizontal: Whether the layers follow one another from left to right.
        is_input: Whether it begins at an input of the graph; it is then dashed.
        palette: The colours.
    """
    steps = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for index, (before, after) in enumerate(pairwise(points)):
        (x0, y0), (x1, y1) = before, after
        if index % 2:
            steps.append(f"L{x1:.1f} {y1:.1f}")
        elif horizontal:
            middle = (x0 + x1) / 2
            steps.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
        else:
            middle = (y0 + y1) / 2
            steps.append(f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    dashes = ' stroke-dasharray="4 3"' if is_input else ""
    return (
        f'<path d="{"".join(steps)}" fill="none" stroke="{palette.line}" stroke-width="1.3"'
        f'{dashes} marker-end="url(#head)"/>'
    )


def label(middle: tuple[float, float], text: str, palette: Palette) -> str:
    """Returns the label of an arrow, with a rim of the background's colour."""
    rim = f' stroke="{palette.background}" stroke-width="4" stroke-linejoin="round"'
    x, y, line = middle[0], middle[1] + 4, html.escape(text)
    # Two texts, since some renderers do not know ``paint-order``.
    below = _text(x, y, 11, palette.background, line, rim + ' aria-hidden="true"')
    return below + _text(x, y, 11, palette.muted, line)
