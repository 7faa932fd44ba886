"""Where edges begin and end: the ports of nodes, and the edges between them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ember_xcs._graph.messages import did_you_mean, explain, listing
from ember_xcs.errors import UnknownFieldError

if TYPE_CHECKING:
    from ember_xcs._graph.node import XCSNode

__all__ = ["MISSING", "Edge", "GraphInput", "InputPort", "InputPorts", "OutputPort", "OutputPorts"]


class _Missing(enum.Enum):
    MISSING = "MISSING"


MISSING: Final = _Missing.MISSING
"""Stands for "no default", so that None can be one."""

MissingType = Literal[_Missing.MISSING]


class Edge(NamedTuple):
    """One value that flows to a node.

    Attributes:
        source: The node that it comes from, or None for an input of the graph.
        source_field: The field of the source's output, or None for the whole output; for an input
            of the graph, the name of that input.
        target: The node that it goes to.
        target_field: The input field that it feeds, or None where that is left to the binding.
    """

    source: str | None
    source_field: str | None
    target: str
    target_field: str | None = None


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: What it is called.
        required: Whether a run without it is an error.
        default: Its value in a run without it; ``MISSING`` where it has none.
        explicit: Whether it was declared by ``XCSGraph.input``, rather than being implied by a
            node without inbound edges.
    """

    name: str
    required: bool = True
    default: Any = MISSING
    explicit: bool = False


@dataclass(frozen=True, slots=True)
class InputPort:
    """An input field of a node, as the end of an edge."""

    node: XCSNode
    field: str

    @property
    def node_id(self) -> str:
        """The id of its node."""
        return self.node.id


@dataclass(frozen=True, slots=True)
class OutputPort:
    """A node's output, one field of it, or an input of the graph, as the beginning of an edge.

    Attributes:
        node: The node, or None for an input of the graph.
        field: The field, None for the whole output; for an input of the graph, its name.
    """

    node: XCSNode | None
    field: str | None = None

    @property
    def node_id(self) -> str | None:
        """The id of its node, or None for an input of the graph."""
        return None if self.node is None else self.node.id


class InputPorts:
    """The input ports of a node, by field name; made when they are asked for."""

    __slots__ = ("_node",)

    def __init__(self, node: XCSNode) -> None:
        self._node = node

    def __getitem__(self, field: str) -> InputPort:
        """Returns the port of one field.

        Raises:
            UnknownFieldError: When the operator has no such field.
        """
        if field not in self:
            raise unknown_input_field(self._node, field, self)
        return InputPort(self._node, field)

    def __contains__(self, field: str) -> bool:
        """Whether the operator takes this field."""
        signature = self._node.operator.signature
        return signature.open or signature.field(field) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the declared fields."""
        return iter(self._node.operator.signature.names)

    def __len__(self) -> int:
        """The number of declared fields."""
        return len(self._node.operator.signature.fields)

    def __repr__(self) -> str:
        return f"InputPorts({self._node.id!r}: {listing(self)})"


class OutputPorts:
    """The output ports of a node, by field name; made when they are asked for."""

    __slots__ = ("_node",)

    def __init__(self, node: XCSNode) -> None:
        self._node = node

    def __getitem__(self, field: str) -> OutputPort:
        """Returns the port of one output field.

        Raises:
            UnknownFieldError: When the operator declares its output fields, and not this one.
        """
        check_output_field(self._node, field)
        return OutputPort(self._node, field)

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the declared output fields."""
        return iter(self._node.operator.signature.outputs or ())

    def __len__(self) -> int:
        """The number of declared output fields."""
        return len(self._node.operator.signature.outputs or ())

    def __repr__(self) -> str:
        return f"OutputPorts({self._node.id!r}: {listing(self)})"


def check_output_field(node: XCSNode, field: str) -> None:
    """Raises UnknownFieldError when the node's operator is known not to give ``field``."""
    signature = node.operator.signature
    declared = signature.outputs
    if declared is None or field in declared:
        return
    returns = signature.returns
    if is_index(field) and isinstance(returns, type) and issubclass(returns, tuple):
        return
    given = f"{node.id!r} ({node.operator.name}) has no output field {field!r}"
    raise UnknownFieldError(
        explain(
            given + did_you_mean(field, declared),
            f"Its declared output fields are {listing(declared)}",
            "Use one of these, or add the field to its return type",
        ),
        (node.id,),
    )


def unknown_input_field(
    node: XCSNode, field: str, known: InputPorts | tuple[str, ...]
) -> UnknownFieldError:
    """Returns the error for an input field that the node's operator does not have."""
    given = f"{node.id!r} ({node.operator.name}) has no input field {field!r}"
    return UnknownFieldError(
        explain(
            given + did_you_mean(field, known),
            f"Its input fields are {listing(known)}",
            "Use one of these, or add the parameter to its operator",
        ),
        (node.id,),
    )


def is_index(field: str) -> bool:
    """Whether a field name is a position in a sequence: ``"0"``, ``"-1"``."""
    digits = field.removeprefix("-")
    return digits.isascii() and digits.isdigit()
