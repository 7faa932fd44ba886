"""Pictures of meshes, and of arrays cut over them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

__all__ = ["mesh_svg", "sharding_svg"]

_COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f",
)  # fmt: skip
_LEAST_WIDTH, _LEAST_HEIGHT, _MARGIN, _EDGE = 96.0, 44.0, 34.0, 8.0
_LARGE, _SMALL = 13, 11
_LETTER = 0.62  # the width of a wide letter of a plain font, in font sizes


class _Cell(NamedTuple):
    """A part of a picture: where in the grid, its colour, and what is written in it."""

    column: int
    row: int
    colour: str
    label: str
    note: str = ""


def mesh_svg(devices: np.ndarray[Any, Any], shape: Mapping[str, int]) -> str:
    """Returns the grid of a mesh; its last axis goes to the right, the others down.

    Args:
        devices: The devices, in the shape of the mesh.
        shape: The size of each axis, by name.
    """
    rows = devices.reshape(-1, devices.shape[-1])
    *down, across = shape
    cells = [
        _Cell(x, y, _colour(device.id), f"device {device.id}")
        for y, row in enumerate(rows)
        for x, device in enumerate(row)
    ]
    return _picture(cells, across, " x ".join(down))


def sharding_svg(parts: Mapping[Any, list[tuple[int, int]]], shape: tuple[int, ...]) -> str:
    """Returns an array, each part with the devices that hold it.

    Args:
        parts: For each device, where its part begins and ends along each axis.
        shape: The shape of the array; its first two axes are drawn, the first one down.
    """
    holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, bounds in parts.items():
        holders.setdefault(tuple(bounds[:2]), []).append(device)
    starts = [sorted({bounds[k][0] for bounds in holders}) for k in range(min(len(shape), 2))]
    cells = []
    for corner, devices in holders.items():
        y, x, *_ = [*(places.index(a) for places, (a, _) in zip(starts, corner, strict=True)), 0, 0]
        note = "[" + ", ".join(f"{a}:{b}" for a, b in corner) + "]"
        cells.append(_Cell(x, y, _colour(devices[0].id), _named(devices), note))
    down, across, *_ = [*(f"axis {k}: {n}" for k, n in enumerate(shape[:2])), "", ""]
    return _picture(cells, across, down)


def _named(devices: Sequence[Any], limit: int = 8) -> str:
    numbers = [str(device.id) for device in devices]
    more = f" and {len(numbers) - limit} more" if len(numbers) > limit else ""
    return f"device{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:limit])}{more}"


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _picture(cells: Sequence[_Cell], across: str, down: str) -> str:
    columns = 1 + max(cell.column for cell in cells)
    rows = 1 + max(cell.row for cell in cells)
    needed = [_length(text, size) for cell in cells for text, size in _written(cell)]
    wide = max(_LEAST_WIDTH, _length(across, _LARGE) / columns, *needed)
    high = max(_LEAST_HEIGHT, _length(down, _LARGE) / rows)
    middle = (_MARGIN + columns * wide / 2, _MARGIN + rows * high / 2)
    width, height = _MARGIN + columns * wide + _EDGE, _MARGIN + rows * high + _EDGE
    drawn = [
        _text(middle[0], _MARGIN - 12, across, _LARGE),
        _text(_MARGIN - 12, middle[1], down, _LARGE, turned=True),
        *(_box(cell, wide, high) for cell in cells),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">' + "".join(drawn) + "</svg>"
    )


def _length(text: str, size: int) -> float:
    """The room that a text needs, with some on both sides."""
    return round(len(text) * size * _LETTER) + 2 * _EDGE


def _written(cell: _Cell) -> list[tuple[str, int]]:
    return [(cell.label, _LARGE), *([(cell.note, _SMALL)] if cell.note else [])]


def _box(cell: _Cell, wide: float, high: float) -> str:
    left, top = _MARGIN + cell.column * wide, _MARGIN + cell.row * high
    lines = [-2, 14] if cell.note else [5]
    texts = [
        _text(left + wide / 2, top + high / 2 + line, text, size)
        for line, (text, size) in zip(lines, _written(cell), strict=True)
    ]
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{wide:g}" height="{high:g}" '
        f'fill="{cell.colour}" fill-opacity="0.35" stroke="{cell.colour}"/>' + "".join(texts)
    )


def _text(x: float, y: float, content: str, size: int, *, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle"{turn} '
        f'fill="currentColor">{html.escape(content)}</text>'
    )
