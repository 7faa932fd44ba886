"""What will be computed: graphs of operators, their analysis, JSON and pictures."""

from ember_xcs._graph.analysis import DependencyAnalyzer
from ember_xcs._graph.bindings import (
    Binding,
    ConstantBinding,
    InputBinding,
    NodeBindings,
    OutputBinding,
    SpreadBinding,
)
from ember_xcs._graph.graph import XCSGraph
from ember_xcs._graph.node import XCSNode
from ember_xcs._graph.pick import pick_field
from ember_xcs._graph.ports import MISSING, Edge, GraphInput, InputPort, OutputPort

__all__ = [
    "MISSING",
    "Binding",
    "ConstantBinding",
    "DependencyAnalyzer",
    "Edge",
    "GraphInput",
    "InputBinding",
    "InputPort",
    "NodeBindings",
    "OutputBinding",
    "OutputPort",
    "SpreadBinding",
    "XCSGraph",
    "XCSNode",
    "pick_field",
]
