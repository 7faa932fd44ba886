"""From a Python function to an XCSGraph at the level of operator calls: no operator is run.

The function runs once, with symbols in place of its arguments. Each operator call becomes a node;
composite operators are opened into the calls that they make. One graph serves all shapes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ember_xcs._core import calls
from ember_xcs._core.plumbing import Form, split_form
from ember_xcs._core.pydantic_models import validation_errors
from ember_xcs._graph import XCSGraph
from ember_xcs._trace.errors import line_of
from ember_xcs._trace.from_jaxpr import GraphProgram
from ember_xcs._trace.recorder import GraphRecorder, finished
from ember_xcs._trace.symbols import Symbol, describe, is_symbol, origin_of
from ember_xcs.errors import TracingError

__all__ = ["RecordedFunction", "record_structure"]


@dataclasses.dataclass(frozen=True)
class RecordedFunction:
    """What a function does, at the level of operator calls.

    Attributes:
        program: The graph, with what is needed to call it by position.
        form: The function's result, with holes where its outputs go.
    """

    program: GraphProgram
    form: Form

    @property
    def calls_operators(self) -> bool:
        """Whether the function called any operator; if not, the graph has no nodes."""
        return len(self.program.graph) > 0

    def result(self, outputs: Sequence[Any]) -> Any:
        """Returns the function's result from the results of its program."""
        return self.form.build(outputs)


def record_structure(
    function: Callable[..., Any],
    structure: Any,
    leaves: Sequence[Any],
    labels: Sequence[str],
    *,
    name: str,
    recursive: bool = True,
    static: Collection[int] = (),
) -> RecordedFunction:
    """Returns what ``function`` does, as a graph of the operator calls that it makes.

    Args:
        function: The user's function, or an operator: that one is opened in any case.
        structure: The tree of ``(args, kwargs)``.
        leaves: Its leaves; only those at the positions in ``static`` are looked at.
        labels: What each leaf is called; all different.
        name: The name of the graph.
        recursive: Whether composite operators are opened into the calls that they make.
        static: The positions of leaves that the function sees as they are, as constants.

    Raises:
        TracingError: The function does more with a value than pass it on, pack it, pick from it
            and return it; the message has the user's line.

    Example:
        >>> import jax
        >>> from ember_xcs._core.functions import host
        >>> draft, judge = host(lambda topic: ...), host(lambda text: ...)
        >>> leaves, structure = jax.tree.flatten((("bees",), {}))
        >>> recorded = record_structure(
        ...     lambda topic: {"score": judge(draft(topic)), "topic": topic},
        ...     structure,
        ...     leaves,
        ...     ["topic"],
        ...     name="essay",
        ... )
        >>> len(recorded.program.graph), recorded.program.outputs
        (2, (('output', 'result_0'), ('input', 'topic')))
        >>> recorded.result([0.5, "bees"])
        {'score': 0.5, 'topic': 'bees'}
    """
    recorder = GraphRecorder(XCSGraph(name), recursive, function)
    symbols = [
        leaf if k in static else recorder.input(label)
        for k, (leaf, label) in enumerate(zip(leaves, labels, strict=True))
    ]
    args, kwargs = structure.unflatten(symbols)
    try:
        with calls.recording(recorder):
            result = finished(function(*args, **kwargs), name)
            form, parts = split_form(result, is_symbol)
            outputs = _set_outputs(recorder, parts)
    except (TypeError, ValueError, RecursionError) as error:
        raise _translated(error) from error
    finally:
        recorder.is_open = False
    inputs = tuple(label for k, label in enumerate(labels) if k not in static)
    return RecordedFunction(GraphProgram(recorder.graph, inputs, outputs), form)


def _set_outputs(recorder: GraphRecorder, results: Sequence[Symbol]) -> tuple[tuple[str, Any], ...]:
    """Names the outputs of the graph, and says where each result is found."""
    named: dict[str, Any] = {}
    refs: list[tuple[str, Any]] = []
    for position, symbol in enumerate(results):
        origin = origin_of(symbol)
        source = recorder.source(symbol)
        if isinstance(origin.source, str) and not origin.path:
            refs.append(("input", origin.source))
        else:
            named[f"result_{position}"] = source
            refs.append(("output", f"result_{position}"))
    recorder.graph.set_outputs(**named)
    return tuple(refs)


def _translated(error: Exception) -> Exception:
    """Returns the ``TracingError`` for an error that library code raises about a symbol."""
    if isinstance(error, validation_errors()):
        given = [e["input"] for e in error.errors(include_url=False)]
        found = next((value for value in given if is_symbol(value)), None)
        if found is None:
            return error
        what = f"{describe(found)} was given to a pydantic model, which validates what it is given"
        remedy = "make the model in a @host function, or with model_construct"
    elif isinstance(error, RecursionError):
        what = "the function calls itself without end"
        remedy = "use mode='enhanced', in which values are known that can end the recursion"
    elif Symbol.__name__ in str(error):
        what = f"a symbol was used as a value ({error})"
        remedy = "do that in a @host function; for text, use xcs.Template"
    else:
        return error
    return TracingError(
        f"{what}, while the structure of the program was being recorded, when no value is known "
        f"yet. To mend it: {remedy}.",
        line_of(error),
    )
