"""A function lowered for one signature: what would run, to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ember_xcs._jit.programs import GraphRunner, NumericRunner, Program
from ember_xcs._lower.plan import Plan, TaskKind

if TYPE_CHECKING:
    from ember_xcs._graph import XCSGraph
    from ember_xcs._jit.request import Request
    from ember_xcs._jit.selection import JITExplanation

__all__ = ["LoweredFunction"]


class LoweredFunction:
    """A function, its strategy, its graph and its plan, for arguments of one kind.

    Attributes:
        strategy: The name of the strategy.
        explanation: Why it is that one.
    """

    def __init__(self, request: Request, program: Program, explanation: JITExplanation) -> None:
        self._request, self._program = request, program
        self.strategy = program.strategy
        self.explanation = explanation

    @property
    def graph(self) -> XCSGraph | None:
        """What is computed; None for plain Python."""
        return self._program.graph

    @property
    def plan(self) -> Plan | None:
        """The tasks as the schedulers see them; None where no scheduler is needed."""
        options = self._request.target.settings.options
        return self._program.plan(options) if isinstance(self._program, GraphRunner) else None

    @property
    def regions(self) -> tuple[tuple[str, ...], ...]:
        """For each compiled program, the nodes of the graph that were fused into it."""
        if self.plan is None:
            return (tuple(self.graph.nodes),) if self.is_numeric and self.graph is not None else ()
        return tuple(t.node_ids for t in self.plan.tasks if t.kind is TaskKind.REGION)

    @property
    def is_numeric(self) -> bool:
        """Whether the whole function is one XLA program."""
        return isinstance(self._program, NumericRunner)

    def as_text(self) -> str:
        """Returns the plan in words; for a numeric function, JAX's own text."""
        if isinstance(self._program, NumericRunner):
            return str(self._jax_lowered(self._program).as_text())
        if self.plan is None:
            return f"{self._request.target.name}: plain Python"
        return "\n".join(_task_line(task) for task in self.plan.tasks)

    def compile(self) -> LoweredFunction:
        """Compiles all programs whose shapes are known, and returns itself."""
        if isinstance(self._program, NumericRunner):
            self._jax_lowered(self._program).compile()
        elif self.plan is not None:
            for warm in self.plan.warmups:
                warm()
        return self

    def _jax_lowered(self, program: NumericRunner) -> Any:
        args, kwargs = self._request.structure.unflatten(self._request.leaves)
        return program.jitted.lower(*args, **kwargs)

    def __repr__(self) -> str:
        return f"LoweredFunction({self._request.target.name}, strategy={self.strategy!r})"


def _task_line(task: Any) -> str:
    what = f"{task.kind.value:<7}{', '.join(task.node_ids)}"
    reads = f" reads {list(task.reads)}" if task.reads else ""
    fan = " (a batch of calls)" if task.fan else ""
    return f"{task.index:>4} {what}{fan}{reads} writes {list(task.writes)}"
