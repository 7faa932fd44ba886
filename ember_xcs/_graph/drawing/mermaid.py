"""A graph as a Mermaid flow chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._graph.drawing.shapes import clean
from ember_xcs._graph.drawing.sources import arrows, shown_inputs

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph

__all__ = ["to_mermaid"]

_PLAIN = " _-.,/\N{RIGHTWARDS ARROW}"
_SHAPES = {
    "pure": ("(", ")"),
    "host": ("{{", "}}"),
    "composite": ("[[", "]]"),
    "glue": ("([", "])"),
}
_CLASSES = (
    "  classDef pure fill:#dbeafe,stroke:#2563eb,color:#172554",
    "  classDef host fill:#ffedd5,stroke:#ea580c,color:#431407",
    "  classDef composite fill:#ede9fe,stroke:#7c3aed,color:#2e1065",
    "  classDef glue fill:#f1f5f9,stroke:#64748b,color:#0f172a",
    "  classDef input fill:#ffffff,stroke:#16a34a,color:#14532d,stroke-dasharray:4 3",
    "  classDef output stroke-width:3px",
)


def to_mermaid(graph: XCSGraph) -> str:
    """Returns a Mermaid flow chart; node ids of the graph are labels in it."""
    nodes = {node_id: f"n{index}" for index, node_id in enumerate(graph)}
    inputs = {name: f"i{index}" for index, (name, _) in enumerate(shown_inputs(graph))}
    lines = ["flowchart TD"]
    lines += [f'  {key}(["{_escaped(name)}"]):::input' for name, key in inputs.items()]
    for node in graph.nodes.values():
        before, after = _SHAPES[node.operator.kind]
        label = node.id if node.name in (node.id, node.operator.name) else f"{node.name}\n{node.id}"
        lines.append(f'  {nodes[node.id]}{before}"{_escaped(label)}"{after}:::{node.operator.kind}')
    for (source, name, target), labels in arrows(graph).items():
        start = inputs[name] if source is None else nodes[source]
        label = f'|"{_escaped(", ".join(labels))}"|' if labels else ""
        lines.append(f"  {start} -->{label} {nodes[target]}")
    results = dict.fromkeys(nodes[p.node.id] for p in graph.outputs.values() if p.node is not None)
    if results:
        lines.append(f"  class {','.join(results)} output")
    return "\n".join([*lines, *_CLASSES]) + "\n"


def _escaped(text: str) -> str:
    """Mermaid has no escapes but entities, written with ``#`` in place of ``&``."""
    return "<br/>".join("".join(map(_entity, clean(line))) for line in text.split("\n"))


def _entity(character: str) -> str:
    return character if character.isalnum() or character in _PLAIN else f"#{ord(character)};"
