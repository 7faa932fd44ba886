"""A graph as an SVG picture."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ember_xcs._graph.drawing import shapes
from ember_xcs._graph.drawing.layout import Box, layered_layout
from ember_xcs._graph.drawing.palette import DARK, LIGHT, Palette
from ember_xcs._graph.drawing.shapes import clean, shortened, text_width
from ember_xcs._graph.drawing.sources import arrows
from ember_xcs._graph.drawing.states import NodeState, RunResult, node_states
from ember_xcs._graph.messages import explain
from ember_xcs.errors import GraphError

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph

__all__ = ["MAX_NODES", "to_svg"]

MAX_NODES = 1000
"""More than this is no picture that anyone can read."""

_MARGIN = 20.0
_HEIGHT = 46.0
_WIDEST = 1400.0
_BETWEEN = 46.0
_PLACES = (0.5, 0.36, 0.64, 0.18, 0.82)  # fan-in is the commoner, and parts towards the source


def to_svg(graph: XCSGraph, result: RunResult | None = None, *, dark: bool = False) -> str:
    """Returns the graph as an SVG picture.

    It is drawn from top to bottom; where that would be too wide, from left to right.

    Args:
        graph: What to draw.
        result: The result of a run, to show what it did to each node.
        dark: Whether it is for a dark background.

    Raises:
        GraphError: When the graph has more than ``MAX_NODES`` nodes.
        CycleError: When the edges form a cycle.
    """
    if len(graph) > MAX_NODES:
        raise GraphError(
            explain(
                f"The graph has {len(graph)} nodes",
                f"A picture has {MAX_NODES} at most, since no one can read more",
                "Draw a part of it: graph.subgraph(nodes).to_svg(); or read graph.describe()",
            )
        )
    return _Picture(graph, node_states(result), DARK if dark else LIGHT).draw()


class _Picture:
    """One picture while it is drawn."""

    def __init__(self, graph: XCSGraph, states: dict[str, NodeState], palette: Palette) -> None:
        self.graph = graph
        self.states = states
        self.palette = palette
        self.arrows = {
            (("input", name) if source is None else ("node", source), ("node", target)): labels
            for (source, name, target), labels in arrows(graph).items()
        }
        self.captions = {vertex: self._caption(vertex) for vertex in self._vertices()}
        widths = {vertex: _box_width(lines) for vertex, lines in self.captions.items()}
        self.widths = widths
        self.labelled: list[tuple[tuple[float, float], float]] = []
        self.horizontal = False
        self.layout = layered_layout(widths, list(self.arrows))
        if self.layout.extent > _WIDEST:
            self._lay_out_sideways()
        self.starts, self.sizes = self._depths()

    def _vertices(self) -> list[tuple[str, str]]:
        named = [("input", name) for name in self.graph.inputs]
        return named + [("node", node_id) for node_id in self.graph.topological_sort()]

    def _caption(self, vertex: tuple[str, str]) -> tuple[str, str]:
        """What stands in a box: a title, and a line below it."""
        kind, name = vertex
        if kind == "input":
            return shortened(name), "input"
        node = self.graph[name]
        own = node.name if node.name not in (node.id, node.operator.name) else ""
        state = self.states.get(name, NodeState())
        parts = [part for part in (shortened(own), node.operator.kind, state.note) if part]
        return shortened(name), " \N{MIDDLE DOT} ".join(parts)

    def _lay_out_sideways(self) -> None:
        sideways = layered_layout(dict.fromkeys(self.widths, _HEIGHT), list(self.arrows))
        self.layout, self.horizontal = sideways, True

    def _depths(self) -> tuple[list[float], list[float]]:
        """Where each layer begins, and how deep it is."""
        depth = [_HEIGHT] * self.layout.depth
        if self.horizontal:
            depth = [0.0] * self.layout.depth
            for vertex, box in self.layout.boxes.items():
                depth[box.layer] = max(depth[box.layer], self.widths[vertex])
        starts = [0.0]
        for size, space in zip(depth, self._spaces(), strict=False):
            starts.append(starts[-1] + size + space)
        return starts, depth

    def _spaces(self) -> list[float]:
        """The space after each layer: enough for the labels, where they lie along it."""
        spaces = [_BETWEEN * 2 if self.horizontal else _BETWEEN] * self.layout.depth
        for arrow, labels in self.arrows.items():
            layer = self.layout.boxes[arrow[1]].layer - 1
            if labels and self.horizontal:
                spaces[layer] = max(spaces[layer], text_width(_label(labels), 11) + 44)
            elif labels:
                spaces[layer] = max(spaces[layer], _BETWEEN + 14)
        return spaces

    def draw(self) -> str:
        depth = self.starts[-2] + self.sizes[-1] if self.sizes else 0.0
        size = self._point(self.layout.extent, depth)
        width, height = size[0] + _MARGIN, size[1] + _MARGIN
        paths, labels = self._drawn_arrows()
        boxes = [self._drawn_box(vertex) for vertex in self.captions]
        name = html.escape(clean(self.graph.name))
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="{shapes.FONT}">'
        )
        return "\n".join(
            [
                head,
                f"<title>{name}</title>",
                shapes.arrow_heads(self.palette),
                f'<rect width="100%" height="100%" rx="8" fill="{self.palette.background}"/>',
                *paths,
                *boxes,
                *labels,
                "</svg>\n",
            ]
        )

    def _point(self, across: float, depth: float) -> tuple[float, float]:
        x, y = (depth, across) if self.horizontal else (across, depth)
        return x + _MARGIN, y + _MARGIN

    def _drawn_box(self, vertex: tuple[str, str]) -> str:
        box = self.layout.boxes[vertex]
        width = self.widths[vertex]
        middle = self._point(box.across, self.starts[box.layer] + self.sizes[box.layer] / 2)
        kind, name = vertex
        shape = "input" if kind == "input" else self.graph[name].operator.kind
        state = self.states.get(name, NodeState()) if kind == "node" else NodeState()
        return shapes.box(
            shape,
            (middle[0] - width / 2, middle[1] - _HEIGHT / 2, width, _HEIGHT),
            self.captions[vertex],
            full_title=name,
            is_output=kind == "node" and name in self._results(),
            state=state.word,
            palette=self.palette,
        )

    def _results(self) -> set[str | None]:
        return {port.node_id for port in self.graph.outputs.values()}

    def _drawn_arrows(self) -> tuple[list[str], list[str]]:
        paths: list[str] = []
        labels: list[str] = []
        for arrow, names in self.arrows.items():
            start, end = self._ends(arrow)
            route = self.layout.routes[arrow]
            points = self._route_points(route, start, end)
            paths.append(
                shapes.arrow(points, self.horizontal, arrow[0][0] == "input", self.palette)
            )
            if names:
                text = _label(names)
                middle = self._free_place(points[-2], points[-1], text_width(text, 11))
                labels.append(shapes.label(middle, text, self.palette))
        return paths, labels

    def _free_place(
        self, before: tuple[float, float], after: tuple[float, float], width: float
    ) -> tuple[float, float]:
        """A place near the end of an arrow where no other label stands, if there is one."""
        places = [_along(before, after, t, self.horizontal) for t in _PLACES]
        free = (p for p in places if not any(_overlap(p, width, *other) for other in self.labelled))
        place = next(free, places[0])
        self.labelled.append((place, width))
        return place

    def _ends(self, arrow: tuple[tuple[str, str], tuple[str, str]]) -> tuple[float, float]:
        """How far the boxes at the ends of an arrow are from the edges of their layers."""
        if not self.horizontal:
            return 0.0, 0.0
        first, last = (self.layout.boxes[vertex].layer for vertex in arrow)
        source, target = (self.widths[vertex] for vertex in arrow)
        return (self.sizes[first] - source) / 2, (self.sizes[last] - target) / 2

    def _route_points(
        self, route: Sequence[Box], start: float, end: float
    ) -> list[tuple[float, float]]:
        """Where an arrow leaves and enters each layer that it passes."""
        first, *between, last = route
        leaves = self.starts[first.layer] + self.sizes[first.layer] - start
        points = [self._point(first.across, leaves)]
        for box in between:
            points.append(self._point(box.across, self.starts[box.layer]))
            points.append(self._point(box.across, self.starts[box.layer] + self.sizes[box.layer]))
        points.append(self._point(last.across, self.starts[last.layer] + end))
        return points


def _label(names: Sequence[str]) -> str:
    return shortened(", ".join(names))


def _along(
    before: tuple[float, float], after: tuple[float, float], t: float, horizontal: bool
) -> tuple[float, float]:
    """A point of the curve that ``shapes.arrow`` draws, for ``t`` from 0 to 1."""
    straight = 1.5 * t * (1 - t) + t**3  # where the controls are half way
    bent = t * t * (3 - 2 * t)  # where they are level with the ends
    x_share, y_share = (straight, bent) if horizontal else (bent, straight)
    return (
        before[0] + (after[0] - before[0]) * x_share,
        before[1] + (after[1] - before[1]) * y_share,
    )


def _overlap(
    one: tuple[float, float], width: float, other: tuple[float, float], other_width: float
) -> bool:
    apart = abs(one[0] - other[0]) >= (width + other_width) / 2 + 4
    return not apart and abs(one[1] - other[1]) < 13


def _box_width(caption: tuple[str, str]) -> float:
    title, below = caption
    return max(76.0, text_width(title, 13) + 36, text_width(below, 11) + 36)
