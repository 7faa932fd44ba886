"""Graphs as JSON.

A document has the operators once each, and nodes that refer to them by position, so that nodes
which share an operator still share it when loaded. ``values.py`` says how values are written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ember_xcs._graph import values
from ember_xcs._graph.messages import explain
from ember_xcs._graph.node import XCSNode
from ember_xcs._graph.ports import MISSING, InputPort, OutputPort
from ember_xcs.errors import GraphError, GraphFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ember_xcs._graph.graph import XCSGraph

__all__ = ["FORMAT", "VERSION", "graph_to_json", "load_into"]

FORMAT = "ember_xcs.graph"
VERSION = 1


def graph_to_json(graph: XCSGraph, indent: int | None = None) -> str:
    """Returns a graph as JSON.

    Raises:
        GraphFormatError: When an operator has no import path, or a value is not JSON.
    """
    operators: list[Any] = []
    places: dict[int, int] = {}
    nodes: list[Any] = []
    for node in graph.nodes.values():
        key = id(node.operator)
        if key not in places:
            places[key] = len(operators)
            operators.append(values.encode(node.operator, f"the operator of {node.id!r}"))
        nodes.append(_encoded_node(node, places[key]))
    outputs = {name: _encoded_port(port) for name, port in graph.outputs.items()}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "inputs": [
            {"name": name}
            if declared.default is MISSING
            else {"name": name, "default": values.encode(declared.default, f"the input {name!r}")}
            for name, declared in graph.declared_inputs.items()
        ],
        "operators": operators,
        "nodes": nodes,
        "edges": [[e.source, e.source_field, e.target, e.target_field] for e in graph.edges],
        "outputs": outputs if graph.has_own_outputs else None,
    }
    return json.dumps(document, indent=indent, allow_nan=False)


def _encoded_node(node: XCSNode, operator: int) -> dict[str, Any]:
    encoded: dict[str, Any] = {"id": node.id, "operator": operator}
    if node.has_own_name:
        encoded["name"] = node.name
    for part, mapping in (("metadata", node.metadata), ("constants", node.constants)):
        if mapping:
            encoded[part] = values.encode(dict(mapping), f"the {part} of {node.id!r}")
    return encoded


def _encoded_port(port: OutputPort) -> dict[str, Any]:
    return {"node": port.node_id, "field": port.field}


def load_into(graph: XCSGraph, source: str, allowed_modules: tuple[str, ...]) -> None:
    """Makes an empty graph the one that a JSON text describes.

    Raises:
        GraphFormatError: When it describes none, or names what is not allowed or not there.
    """
    document = _parsed(source)
    decoder = values.Decoder(allowed_modules)
    graph.name = _typed(document, "name", str)
    try:
        for declared in _typed(document, "inputs", list):
            default = declared["default"] if "default" in _mapping(declared) else MISSING
            graph.input(
                _typed(declared, "name", str),
                default if default is MISSING else decoder.decode(default),
            )
        operators = [decoder.operator(item) for item in _typed(document, "operators", list)]
        for item in _typed(document, "nodes", list):
            graph.add_node(_node(_mapping(item), operators, decoder))
        for item in _typed(document, "edges", list):
            _add_edge(graph, item)
        _set_outputs(graph, document)
    except GraphFormatError:
        raise
    except RecursionError as error:
        raise malformed("It is nested too deeply") from error
    except GraphError as error:
        raise malformed(f"It describes no graph: {error}") from error


def malformed(given: str) -> GraphFormatError:
    """Returns the error for a text that is not a graph."""
    return GraphFormatError(
        explain(
            given,
            f"A saved graph is a JSON object with format {FORMAT!r} and version {VERSION}",
            "Save it again with graph.to_json()",
        )
    )


def _parsed(source: str) -> dict[str, Any]:
    if not isinstance(source, str):
        raise malformed(f"A {type(source).__name__} was given, not a text")
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise malformed(f"The text is not JSON: {error}") from error
    document = _mapping(document)
    if document.get("format") != FORMAT:
        raise malformed(f"The format is {document.get('format')!r}")
    if type(document.get("version")) is not int or document["version"] != VERSION:
        raise malformed(f"The version is {document.get('version')!r}")
    return document


def _mapping(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise malformed(f"A {type(item).__name__} stands where an object should be")
    return item


def _typed(item: Any, key: str, wanted: type) -> Any:
    value = _mapping(item).get(key)
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise malformed(f"{key!r} is {value!r:.80}, not a {wanted.__name__}")
    return value


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise malformed(f"{value!r:.80} stands where a name or null should be")
    return value


def _node(item: Mapping[str, Any], operators: list[Any], decoder: values.Decoder) -> XCSNode:
    place = _typed(item, "operator", int)
    if not 0 <= place < len(operators):
        raise malformed(f"There is no operator number {place}")
    parts = {
        part: _mapping(decoder.decode(item.get(part, {}))) for part in ("metadata", "constants")
    }
    return XCSNode(
        _typed(item, "id", str), operators[place], _optional_text(item.get("name")), **parts
    )


def _add_edge(graph: XCSGraph, item: Any) -> None:
    if not isinstance(item, list) or len(item) != 4:
        raise malformed("An edge is not a list of source, its field, target, its field")
    source, source_field, target, target_field = map(_optional_text, item)
    if target is None:
        raise malformed("An edge has no target")
    node = graph[target]
    end = node if target_field is None else InputPort(node, target_field)
    graph.add_edge(_port(graph, source, source_field), end)


def _port(graph: XCSGraph, node_id: str | None, field: str | None) -> OutputPort:
    return OutputPort(None if node_id is None else graph[node_id], field)


def _set_outputs(graph: XCSGraph, document: Mapping[str, Any]) -> None:
    if document.get("outputs") is None:
        return
    ports = {}
    for name, item in _typed(document, "outputs", dict).items():
        node_id, field = (_optional_text(_mapping(item).get(key)) for key in ("node", "field"))
        ports[name] = _port(graph, node_id, field)
    graph.set_outputs(**ports)
