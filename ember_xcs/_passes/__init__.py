"""Passes: rewrites from graph to graph, each on its own and each switchable by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ember_xcs._passes.common_subexpressions import common_subexpressions
from ember_xcs._passes.constant_folding import constant_folding
from ember_xcs._passes.dead_nodes import dead_nodes
from ember_xcs._passes.open_composites import open_composites
from ember_xcs.errors import OptionsError

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph

__all__ = ["DEFAULT_PASSES", "PASSES", "optimize"]

PASSES: dict[str, Callable[[XCSGraph], XCSGraph]] = {
    "open_composites": open_composites,
    "dead_nodes": dead_nodes,
    "common_subexpressions": common_subexpressions,
    "constant_folding": constant_folding,
}

FUSION = "fusion"
"""Which pure nodes are compiled together is decided when a graph is lowered to a plan."""

DEFAULT_PASSES = (*PASSES, FUSION)


def optimize(graph: XCSGraph, passes: Iterable[str] = DEFAULT_PASSES) -> XCSGraph:
    """Returns the graph rewritten by these passes, in this order.

    Args:
        graph: The graph; it is not changed, and is returned itself where nothing was to do.
        passes: Their names; ``"fusion"`` has its effect when the graph is lowered.

    Raises:
        OptionsError: A name is not that of a pass.
    """
    names = tuple(passes)
    for name in names:
        if name not in DEFAULT_PASSES:
            raise OptionsError(
                f"there is no pass {name!r}; the passes are {', '.join(DEFAULT_PASSES)}."
            )
    for name in names:
        if name in PASSES:
            graph = PASSES[name](graph)
    return graph
