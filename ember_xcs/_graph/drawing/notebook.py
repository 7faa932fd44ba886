"""What Jupyter shows of a graph."""

from __future__ import annotations

import html as html_text
from typing import TYPE_CHECKING

from ember_xcs._graph.drawing.svg import to_svg
from ember_xcs._graph.drawing.text import describe
from ember_xcs.errors import CycleError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph

__all__ = ["html", "mimebundle"]

_DRAWN = 200


def mimebundle(graph: XCSGraph) -> dict[str, str]:
    """Returns what a notebook can show, by media type."""
    return {"text/plain": repr(graph), "text/html": html(graph)}


def html(graph: XCSGraph) -> str:
    """Returns a picture that follows the reader's theme; a line of text for a large graph."""
    if len(graph) > _DRAWN:
        hint = "too large to be shown whole: see <code>graph.describe()</code>"
        return f"<p>{html_text.escape(repr(graph))}: {hint}</p>"
    try:
        light, dark = to_svg(graph), to_svg(graph, dark=True)
    except CycleError as error:
        return f"<pre>{html_text.escape(f'{describe(graph)}{chr(10)}{error}')}</pre>"
    return (
        "<style>.xcs-dark{display:none}@media(prefers-color-scheme:dark)"
        "{.xcs-light{display:none}.xcs-dark{display:block}}</style>"
        f'<div class="xcs-light" style="overflow:auto">{light}</div>'
        f'<div class="xcs-dark" style="overflow:auto">{dark}</div>'
    )
