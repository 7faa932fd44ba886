"""The colours of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DARK", "LIGHT", "Palette"]


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a picture.

    Attributes:
        background: What is behind it.
        text: Titles.
        muted: What stands below titles.
        line: Arrows.
        failed: Nodes that failed.
        kinds: Fill and outline, by kind of node.
    """

    background: str
    text: str
    muted: str
    line: str
    failed: str
    kinds: Mapping[str, tuple[str, str]]


LIGHT = Palette(
    background="#ffffff",
    text="#0f172a",
    muted="#475569",
    line="#64748b",
    failed="#dc2626",
    kinds={
        "pure": ("#dbeafe", "#2563eb"),
        "host": ("#ffedd5", "#ea580c"),
        "composite": ("#ede9fe", "#7c3aed"),
        "glue": ("#f1f5f9", "#64748b"),
        "input": ("#ffffff", "#16a34a"),
    },
)

DARK = Palette(
    background="#0f172a",
    text="#f1f5f9",
    muted="#b6c2d2",
    line="#94a3b8",
    failed="#f87171",
    kinds={
        "pure": ("#1e3a5f", "#60a5fa"),
        "host": ("#4a2a14", "#fb923c"),
        "composite": ("#35255f", "#a78bfa"),
        "glue": ("#1e293b", "#94a3b8"),
        "input": ("#0f172a", "#4ade80"),
    },
)
