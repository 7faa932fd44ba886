"""A graph in Graphviz's language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ember_xcs._graph.drawing.sources import arrows, shown_inputs

if TYPE_CHECKING:
    from ember_xcs._graph.graph import XCSGraph

__all__ = ["to_dot"]

_STYLES = {
    "pure": 'shape=box, style="rounded,filled", fillcolor="#dbeafe", color="#2563eb"',
    "host": 'shape=hexagon, style=filled, fillcolor="#ffedd5", color="#ea580c"',
    "composite": 'shape=box, peripheries=2, style=filled, fillcolor="#ede9fe", color="#7c3aed"',
    "glue": 'shape=ellipse, style=filled, fillcolor="#f1f5f9", color="#64748b"',
}


def to_dot(graph: XCSGraph) -> str:
    """Returns the graph for Graphviz; node ids of the graph are labels in it."""
    nodes = {node_id: f"n{index}" for index, node_id in enumerate(graph)}
    inputs = {name: f"i{index}" for index, (name, _) in enumerate(shown_inputs(graph))}
    results = {port.node_id for port in graph.outputs.values()}
    lines = [f"digraph {_quoted(graph.name)} {{", '  node [fontname="sans-serif"];']
    for name, key in inputs.items():
        lines.append(
            f'  {key} [label={_quoted(name)}, shape=ellipse, style=dashed, color="#16a34a"];'
        )
    for node in graph.nodes.values():
        label = node.id if node.name in (node.id, node.operator.name) else f"{node.name}\n{node.id}"
        width = ", penwidth=2.5" if node.id in results else ""
        style = _STYLES[node.operator.kind]
        lines.append(f"  {nodes[node.id]} [label={_quoted(label)}, {style}{width}];")
    for (source, name, target), labels in arrows(graph).items():
        start = inputs[name] if source is None else nodes[source]
        label = f" [label={_quoted(', '.join(labels))}]" if labels else ""
        lines.append(f"  {start} -> {nodes[target]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")
    return f'"{escaped}"'
