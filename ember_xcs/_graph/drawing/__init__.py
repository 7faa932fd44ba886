"""Pictures of graphs: text, Mermaid, Graphviz, SVG and Jupyter; each is loaded when it is drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember_xcs._graph.drawing import dot, mermaid, notebook, svg, text

__all__ = ["dot", "mermaid", "notebook", "svg", "text"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
