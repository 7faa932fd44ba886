"""Pictures of meshes, and of arrays cut over them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

__all__ = ["mesh_svg", "sharding_svg"]

_COLOURS = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f",
)  # fmt: skip
_CELL_WIDTH, _CELL_HEIGHT, _MARGIN = 96, 44, 34


def mesh_svg(devices: np.ndarray[Any, Any], shape: Mapping[str, int]) -> str:
    """Returns the grid of a mesh; its last axis goes to the right, the others down.

    Args:
        devices: The devices, in the shape of the mesh.
        shape: The size of each axis, by name.
    """
    rows = devices.reshape(-1, devices.shape[-1])
    *down, across = shape
    cells = [
        _cell(x, y, 1, 1, f"device {device.id}", _colour(device.id))
        for y, row in enumerate(rows)
        for x, device in enumerate(row)
    ]
    return _picture(cells, rows.shape[1], rows.shape[0], across, " x ".join(down))


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
        bounds = list(corner)
        y = starts[0].index(bounds[0][0]) if bounds else 0
        x = starts[1].index(bounds[1][0]) if len(bounds) > 1 else 0
        label = "device " + ", ".join(str(device.id) for device in devices)
        part = "[" + ", ".join(f"{a}:{b}" for a, b in bounds) + "]"
        cells.append(_cell(x, y, 1, 1, label, _colour(devices[0].id), part))
    columns = len(starts[1]) if len(starts) > 1 else 1
    rows = len(starts[0]) if starts else 1
    sizes = [f"axis {k}: {n}" for k, n in enumerate(shape[:2])]
    return _picture(cells, columns, rows, sizes[1] if len(sizes) > 1 else "", *sizes[:1])


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _cell(x: int, y: int, width: int, height: int, label: str, colour: str, note: str = "") -> str:
    left, top = _MARGIN + x * _CELL_WIDTH, _MARGIN + y * _CELL_HEIGHT
    middle = left + width * _CELL_WIDTH / 2
    line = top + height * _CELL_HEIGHT / 2
    texts = [_text(middle, line + (-2 if note else 5), label, 13)]
    if note:
        texts.append(_text(middle, line + 14, note, 11))
    return (
        f'<rect x="{left}" y="{top}" width="{width * _CELL_WIDTH}" height="{height * _CELL_HEIGHT}"'
        f' fill="{colour}" fill-opacity="0.35" stroke="{colour}"/>' + "".join(texts)
    )


def _text(x: float, y: float, content: str, size: int, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle"{turn} '
        f'fill="currentColor">{html.escape(content)}</text>'
    )


def _picture(cells: list[str], columns: int, rows: int, across: str, down: str = "") -> str:
    width = _MARGIN + columns * _CELL_WIDTH + 8
    height = _MARGIN + rows * _CELL_HEIGHT + 8
    labels = [
        _text(_MARGIN + columns * _CELL_WIDTH / 2, _MARGIN - 12, across, 13),
        _text(_MARGIN - 12, _MARGIN + rows * _CELL_HEIGHT / 2, down, 13, turned=True),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">'
        + "".join(labels + cells)
        + "</svg>"
    )
