"""Where the boxes of a picture stand: a layered drawing.

After Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of hierarchical system
structures": layers by longest path, long arrows led through the layers between by small boxes of
their own, the order in each layer by barycentres. Coordinates then come from the pool of adjacent
violators (Barlow et al., 1972): each box as near to the mean of its neighbours as order and
spacing allow.

Everything is in two coordinates: *across*, along a layer, and *depth*, from layer to layer. The
picture decides which of them is horizontal.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

__all__ = ["Box", "Layout", "layered_layout"]

V = TypeVar("V", bound=Hashable)

_SWEEPS = 8
_GAP = 22.0
_LANE = 8.0


@dataclass(slots=True)
class Box:
    """A place in a layer.

    Attributes:
        across: Its middle along the layer, in pixels.
        size: How much of the layer it takes, in pixels.
        layer: The number of its layer.
        above: Its neighbours in the layer before.
        below: Its neighbours in the layer after.
    """

    size: float
    layer: int
    across: float = 0.0
    above: list[Box] = field(default_factory=list)
    below: list[Box] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout(Generic[V]):
    """Where everything stands.

    Attributes:
        boxes: The box of each vertex.
        routes: The boxes that each arrow leads through, with those at its ends.
        extent: The length of the longest layer, in pixels.
        depth: The number of layers.
    """

    boxes: Mapping[V, Box]
    routes: Mapping[tuple[V, V], Sequence[Box]]
    extent: float
    depth: int


def layered_layout(sizes: Mapping[V, float], arrows: Sequence[tuple[V, V]]) -> Layout[V]:
    """Returns a layered drawing.

    Args:
        sizes: How much of a layer each vertex takes, in pixels; in a topological order.
        arrows: Pairs of vertices, without duplicates.
    """
    layer = _layers(sizes, arrows)
    boxes = {vertex: Box(size, layer[vertex]) for vertex, size in sizes.items()}
    layers: list[list[Box]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for box in boxes.values():
        layers[box.layer].append(box)
    routes = {arrow: _route(boxes[arrow[0]], boxes[arrow[1]], layers) for arrow in arrows}
    _order(layers)
    _place(layers)
    extent = _shift_to_zero(layers)
    return Layout(boxes, routes, extent, len(layers))


def _layers(sizes: Mapping[V, float], arrows: Sequence[tuple[V, V]]) -> dict[V, int]:
    """The longest path to each vertex; those that read nothing stand right before a reader."""
    readers: dict[V, list[V]] = {vertex: [] for vertex in sizes}
    reads: set[V] = set()
    for source, target in arrows:
        readers[source].append(target)
        reads.add(target)
    layer = dict.fromkeys(sizes, 0)
    for vertex in sizes:
        for target in readers[vertex]:
            layer[target] = max(layer[target], layer[vertex] + 1)
    for vertex in sizes:
        if vertex not in reads and readers[vertex]:
            layer[vertex] = min(layer[target] for target in readers[vertex]) - 1
    return layer


def _route(start: Box, end: Box, layers: list[list[Box]]) -> list[Box]:
    route = [start]
    for number in range(start.layer + 1, end.layer):
        lane = Box(_LANE, number)
        layers[number].append(lane)
        route.append(lane)
    route.append(end)
    for before, after in pairwise(route):
        before.below.append(after)
        after.above.append(before)
    return route


def _order(layers: list[list[Box]]) -> None:
    for boxes in layers:
        _number(boxes)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for boxes in layers if down else reversed(layers):
            boxes.sort(key=lambda box: _mean(box.above if down else box.below, box.across))
            _number(boxes)


def _number(boxes: list[Box]) -> None:
    """During ordering, ``across`` is the place in the layer, between 0 and 1."""
    for index, box in enumerate(boxes):
        box.across = (index + 0.5) / len(boxes)


def _place(layers: list[list[Box]]) -> None:
    for boxes in layers:
        _settle(boxes, [0.0] * len(boxes))
    for sweep in range(_SWEEPS):
        for boxes in layers if sweep % 2 == 0 else reversed(layers):
            _settle(boxes, [_mean(box.above + box.below, box.across) for box in boxes])


def _settle(boxes: list[Box], wanted: list[float]) -> None:
    """Puts the boxes of a layer as near to where they are wanted as order and spacing allow."""
    offsets: list[float] = []
    for index, box in enumerate(boxes):
        before = boxes[index - 1] if index else box
        space = (before.size + box.size) / 2 + _GAP
        offsets.append(offsets[-1] + space if index else 0.0)
    blocks: list[tuple[float, int]] = []  # the sum of what a block wants, and its length
    for want, offset in zip(wanted, offsets, strict=True):
        total, count = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            more = blocks.pop()
            total, count = total + more[0], count + more[1]
        blocks.append((total, count))
    places = [total / count for total, count in blocks for _ in range(count)]
    for box, place, offset in zip(boxes, places, offsets, strict=True):
        box.across = place + offset


def _mean(neighbours: list[Box], default: float) -> float:
    if not neighbours:
        return default
    return sum(box.across for box in neighbours) / len(neighbours)


def _shift_to_zero(layers: list[list[Box]]) -> float:
    boxes = [box for layer in layers for box in layer]
    low = min((box.across - box.size / 2 for box in boxes), default=0.0)
    for box in boxes:
        box.across -= low
    return max((box.across + box.size / 2 for box in boxes), default=0.0)
