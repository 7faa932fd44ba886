"""ember_xcs: one graph for numeric operators and host operators, with JAX's transformations.

Numeric operators are compiled, batched and differentiated by JAX; host operators (model calls,
tools, I/O) run in a scheduler on the host, as early and as concurrently as the data flow allows.

    >>> import jax, jax.numpy as jnp
    >>> import ember_xcs as xcs
    >>> @xcs.host
    ... def draft(question: str, sample: int) -> str:
    ...     return f"{question} ({sample})"
    >>> @xcs.host
    ... def judge(answer: str) -> float:
    ...     return float(len(answer))
    >>> @xcs.jit.trace
    ... def best_of_three(question):
    ...     answers = jax.vmap(lambda k: draft(question, k))(jnp.arange(8, 11))
    ...     scores = jax.vmap(judge)(answers)
    ...     return answers[jnp.argmax(scores)]
    >>> best_of_three("Why?")
    'Why? (10)'
"""

from __future__ import annotations

import importlib as _importlib
from typing import TYPE_CHECKING, Any

from ember_xcs._core.collector import uncollected as _uncollected

# isort: off
with _uncollected():  # a collection now would look at all of JAX's objects, and find nothing
    # Errors
    from ember_xcs.errors import (
        AuthenticationFailed,
        BudgetExceeded,
        CycleError,
        DuplicateNodeError,
        ExecutionCancelled,
        ExecutionTimeout,
        FieldConflictError,
        GraphError,
        GraphFormatError,
        InvalidRequest,
        LoweringError,
        ModelError,
        NodeExecutionError,
        OperatorInputError,
        OperatorOutputError,
        OptionsError,
        RateLimited,
        ResponseInvalid,
        ServiceUnavailable,
        TracingError,
        TransformError,
        UnboundInputError,
        UnknownFieldError,
        UnknownNodeError,
        XCSError,
    )

    # Operators
    from ember_xcs._core.operator import HostOperator, Operator
    from ember_xcs._core.functions import from_callable, host, pure
    from ember_xcs._core.policy import HostPolicy
    from ember_xcs._core.composition import Ensemble, Parallel, Sequential
    from ember_xcs._core.template import Template
    from ember_xcs._core.adapters import from_equinox, from_flax

    # Options
    from ember_xcs._core import options as _options
    from ember_xcs._core.options import (
        execution_options,
        get_execution_options,
        reset_execution_options,
        set_execution_options,
    )

    # What calls may cost
    from ember_xcs._core.budget import Budget
    from ember_xcs._core.limit import Limit
    from ember_xcs._core.retry import Retry
    from ember_xcs._core.usage import record_usage

    # Graphs
    from ember_xcs._graph import DependencyAnalyzer, Edge, XCSGraph, XCSNode

    # Tracing
    from ember_xcs._trace.host_values import HostValue
    from ember_xcs._trace.autograph import autograph
    from ember_xcs._trace.tracer_context import TraceRecord, TracerContext

    # Passes and plans
    from ember_xcs._passes import optimize
    from ember_xcs._lower.plan import Executor, Plan, Task, TaskKind

    # Runs
    from ember_xcs._runtime.adaptive import AdaptiveScheduler
    from ember_xcs._runtime.execute import GraphExecutor, aexecute_graph, execute_graph
    from ember_xcs._runtime.journal import Journal
    from ember_xcs._runtime.noop import NoOpScheduler
    from ember_xcs._runtime.parallel import ParallelScheduler
    from ember_xcs._runtime.progress import Progress
    from ember_xcs._runtime.registry import create_scheduler, register_scheduler
    from ember_xcs._runtime.result_cache import ResultCache
    from ember_xcs._runtime.result import ExecutionResult
    from ember_xcs._runtime.run import Run
    from ember_xcs._runtime.scheduler import Scheduler
    from ember_xcs._runtime.sequential import SequentialScheduler
    from ember_xcs._runtime import services as _services  # noqa: F401  (it registers itself)
    from ember_xcs._runtime.supervise import execute_plan
    from ember_xcs._runtime.shutdown import shutdown_pools
    from ember_xcs._runtime.timeline import ExecutionMetrics, TimelineEntry
    from ember_xcs._runtime.topological import TopologicalScheduler
    from ember_xcs._runtime.wave import WaveScheduler

    # Control flow
    from ember_xcs._transforms.control_flow import cond, fori_loop, scan, switch, while_loop

    # Transformations
    from ember_xcs._transforms.compose import compose
    from ember_xcs._transforms.gradients import grad, value_and_grad
    from ember_xcs._transforms.mesh import DeviceMesh
    from ember_xcs._transforms.mesh_sharded import mesh_sharded
    from ember_xcs._transforms.partition_spec import PartitionSpec
    from ember_xcs._transforms.pmap import pmap
    from ember_xcs._transforms.vmap import vmap

    # The front door
    from ember_xcs._jit.cache import JITCache
    from ember_xcs._jit.jit import (
        explain_jit_selection,
        get_jit_stats,
        get_jit_strategy_used,
        is_jit_compiled,
        jit,
        structural_jit,
    )
    from ember_xcs._jit.selection import JITExplanation
    from ember_xcs._jit.settings import JITMode, JITSettings
    from ember_xcs._jit.strategies import Strategy, register_strategy

# isort: on

if TYPE_CHECKING:
    from ember_xcs import models
    from ember_xcs._core.execution_options import ExecutionOptions

__version__ = "0.1.0"

__all__ = [
    "AdaptiveScheduler",
    "aexecute_graph",
    "AuthenticationFailed",
    "autograph",
    "Budget",
    "BudgetExceeded",
    "compose",
    "cond",
    "create_scheduler",
    "CycleError",
    "DependencyAnalyzer",
    "DeviceMesh",
    "DuplicateNodeError",
    "Edge",
    "Ensemble",
    "execute_graph",
    "execute_plan",
    "execution_options",
    "ExecutionCancelled",
    "ExecutionMetrics",
    "ExecutionOptions",
    "ExecutionResult",
    "ExecutionTimeout",
    "Executor",
    "explain_jit_selection",
    "FieldConflictError",
    "fori_loop",
    "from_callable",
    "from_equinox",
    "from_flax",
    "get_execution_options",
    "get_jit_stats",
    "get_jit_strategy_used",
    "grad",
    "GraphError",
    "GraphExecutor",
    "GraphFormatError",
    "host",
    "HostOperator",
    "HostPolicy",
    "HostValue",
    "InvalidRequest",
    "is_jit_compiled",
    "jit",
    "JITCache",
    "JITExplanation",
    "JITMode",
    "JITSettings",
    "Journal",
    "Limit",
    "LoweringError",
    "mesh_sharded",
    "ModelError",
    "models",
    "NodeExecutionError",
    "NoOpScheduler",
    "Operator",
    "OperatorInputError",
    "OperatorOutputError",
    "optimize",
    "OptionsError",
    "Parallel",
    "ParallelScheduler",
    "PartitionSpec",
    "Plan",
    "pmap",
    "Progress",
    "pure",
    "RateLimited",
    "record_usage",
    "register_scheduler",
    "register_strategy",
    "reset_execution_options",
    "ResponseInvalid",
    "ResultCache",
    "Retry",
    "Run",
    "scan",
    "Scheduler",
    "Sequential",
    "SequentialScheduler",
    "ServiceUnavailable",
    "set_execution_options",
    "shutdown_pools",
    "Strategy",
    "structural_jit",
    "switch",
    "Task",
    "TaskKind",
    "Template",
    "TimelineEntry",
    "TopologicalScheduler",
    "TracerContext",
    "TraceRecord",
    "TracingError",
    "TransformError",
    "UnboundInputError",
    "UnknownFieldError",
    "UnknownNodeError",
    "value_and_grad",
    "vmap",
    "WaveScheduler",
    "while_loop",
    "XCSError",
    "XCSGraph",
    "XCSNode",
]


def __getattr__(name: str) -> Any:
    if name == "ExecutionOptions":  # it is a pydantic model, and pydantic takes long to load
        return _options.ExecutionOptions
    if name == "models":  # it is for some programs only, and needs pydantic, too
        return _importlib.import_module(f"{__name__}.models")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
