"""A node of a graph: an operator in a place of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ember_xcs._graph.ports import InputPorts, OutputPorts

if TYPE_CHECKING:
    from ember_xcs._core.operator import Operator

__all__ = ["XCSNode", "readable_id"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class XCSNode:
    """One use of an operator in a graph.

    A node does not change, so copies of a graph share their nodes. Its ports are made when they
    are asked for: a graph of 100,000 nodes has no ports until someone connects by them.

    Example:
        >>> from ember_xcs._graph import XCSGraph
        >>> def judge(answer: str) -> float: ...
        >>> node = XCSGraph().add_node(judge, metadata={"team": "search"})
        >>> node.id, list(node.inputs), node.metadata["team"]
        ('judge', ['answer'], 'search')
    """

    __slots__ = ("_constants", "_id", "_metadata", "_name", "_operator")

    def __init__(
        self,
        node_id: str,
        operator: Operator,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self._id = node_id
        self._operator = operator
        self._name = name
        self._metadata = dict(metadata) if metadata else None
        self._constants = dict(constants) if constants else None

    @property
    def id(self) -> str:
        """What it is called in its graph; unique there."""
        return self._id

    @property
    def operator(self) -> Operator:
        """What it runs."""
        return self._operator

    @property
    def name(self) -> str:
        """What it is called in pictures; by default the name of its operator."""
        return self._operator.name if self._name is None else self._name

    @property
    def has_own_name(self) -> bool:
        """Whether it was given a name, rather than having that of its operator."""
        return self._name is not None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What its builder noted about it; read-only, and without effect on a run."""
        return MappingProxyType(self._metadata) if self._metadata else _NOTHING

    @property
    def constants(self) -> Mapping[str, Any]:
        """The input fields that were bound to values when the graph was built; read-only."""
        return MappingProxyType(self._constants) if self._constants else _NOTHING

    @property
    def inputs(self) -> InputPorts:
        """Its input ports: ``node.inputs["document"]``."""
        return InputPorts(self)

    @property
    def outputs(self) -> OutputPorts:
        """Its output ports: ``node.outputs["text"]``."""
        return OutputPorts(self)

    def renamed(self, node_id: str) -> XCSNode:
        """Returns the same use of the operator under another id."""
        return XCSNode(node_id, self._operator, self._name, self._metadata, self._constants)

    def __repr__(self) -> str:
        return f"XCSNode({self._id!r}, {self._operator.kind} {self._operator.name})"


@functools.lru_cache(maxsize=1024)
def readable_id(operator_name: str) -> str:
    """Returns the name of an operator as an id: ``"LLMJudge"`` is ``"llm_judge"``.

    Example:
        >>> readable_id("LLMJudge"), readable_id("search"), readable_id("<lambda>")
        ('llm_judge', 'search', 'lambda')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", operator_name)
    return re.sub(r"\W+", "_", spaced).strip("_").lower() or "node"
