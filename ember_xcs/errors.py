"""The errors of ember_xcs, one class per situation.

::

    XCSError
    ├── GraphError
    │   ├── DuplicateNodeError
    │   ├── UnknownNodeError
    │   ├── UnknownFieldError
    │   ├── UnboundInputError
    │   ├── FieldConflictError
    │   ├── CycleError
    │   └── GraphFormatError
    ├── OptionsError
    ├── TracingError
    ├── LoweringError
    ├── TransformError
    ├── OperatorInputError
    ├── OperatorOutputError
    ├── NodeExecutionError
    ├── ExecutionTimeout
    ├── BudgetExceeded
    ├── ExecutionCancelled
    └── ModelError
        ├── RateLimited
        ├── AuthenticationFailed
        ├── InvalidRequest
        ├── ServiceUnavailable
        └── ResponseInvalid

A message says what came in, which rule it breaks, and what to do. Every error
survives a pickle round trip, so that it can cross a process boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AuthenticationFailed",
    "BudgetExceeded",
    "CycleError",
    "DuplicateNodeError",
    "ExecutionCancelled",
    "ExecutionTimeout",
    "FieldConflictError",
    "GraphError",
    "GraphFormatError",
    "InvalidRequest",
    "LoweringError",
    "ModelError",
    "NodeExecutionError",
    "OperatorInputError",
    "OperatorOutputError",
    "OptionsError",
    "RateLimited",
    "ResponseInvalid",
    "ServiceUnavailable",
    "TracingError",
    "TransformError",
    "UnboundInputError",
    "UnknownFieldError",
    "UnknownNodeError",
    "XCSError",
]


class XCSError(Exception):
    """The root of every error that ember_xcs raises."""


class GraphError(XCSError):
    """Raised when a graph is built or used against its rules.

    Attributes:
        node_ids: The nodes concerned, in the order in which the message names them.
    """

    def __init__(self, message: str, node_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message, node_ids)
        self.node_ids = node_ids

    def __str__(self) -> str:
        return str(self.args[0])


class DuplicateNodeError(GraphError):
    """Raised when a node is added under an id that the graph already has."""


class UnknownNodeError(GraphError):
    """Raised when an id names no node of the graph."""


class UnknownFieldError(GraphError):
    """Raised when an edge names a field that the operator does not have."""


class UnboundInputError(GraphError):
    """Raised when nothing feeds a required input field."""


class FieldConflictError(GraphError):
    """Raised when two edges write the same input field."""


class CycleError(GraphError):
    """Raised when the edges of a graph form a cycle; ``node_ids`` is the cycle."""


class GraphFormatError(GraphError):
    """Raised when a graph cannot be saved as JSON, or JSON is not a graph."""


class OptionsError(XCSError):
    """Raised when an option is unknown or has a value that it cannot have."""


class TracingError(XCSError):
    """Raised when a function cannot be staged.

    Attributes:
        user_line: ``"file:line: code"`` of the user's line at fault, where known.
    """

    def __init__(self, message: str, user_line: str | None = None) -> None:
        super().__init__(message, user_line)
        self.user_line = user_line

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\n  at {self.user_line}" if self.user_line else message


class LoweringError(XCSError):
    """Raised when a graph cannot be turned into a plan."""


class TransformError(XCSError):
    """Raised when a transformation meets a program or arguments it does not fit."""


class OperatorInputError(XCSError):
    """Raised when the arguments of an operator break its signature or specification."""


class OperatorOutputError(XCSError):
    """Raised when an operator returns what it has not declared."""


class NodeExecutionError(XCSError):
    """Raised when an operator fails during a run; the original is ``__cause__``.

    Attributes:
        node_id: The node that failed.
        operator: The name of its operator.
        inputs: A summary of its inputs: types and shapes, never contents.
    """

    def __init__(self, message: str, node_id: str, operator: str = "", inputs: str = "") -> None:
        super().__init__(message, node_id, operator, inputs)
        self.node_id = node_id
        self.operator = operator
        self.inputs = inputs

    def __str__(self) -> str:
        return str(self.args[0])


class _Interrupted(XCSError):
    """What the errors share that end a run before its time."""

    def __init__(self, message: str, partial_results: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, partial_results)
        self.partial_results: Mapping[str, Any] = partial_results or {}

    def __str__(self) -> str:
        return str(self.args[0])


class ExecutionTimeout(_Interrupted):
    """Raised when a run or a node passes its deadline.

    Attributes:
        partial_results: What the run had computed by then, by node id.
    """


class BudgetExceeded(_Interrupted):
    """Raised when a run would spend more than its budget.

    Attributes:
        partial_results: What the run had computed by then, by node id.
    """


class ExecutionCancelled(_Interrupted):
    """Raised when a run is cancelled from outside.

    Attributes:
        partial_results: What the run had computed by then, by node id.
    """


class ModelError(XCSError):
    """Raised when a model does not answer, or not as it should.

    It holds neither prompts nor keys, and not the error of the client, which may hold both.

    Attributes:
        model: The name of the model.
        status: The HTTP status of the answer; None if there was none.
        retry_after: How long the server asked to wait, in seconds; None if it did not.
        retryable: Whether the same request may succeed another time. ``xcs.Retry`` does not try
            the others again.
    """

    retryable: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        model: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, model, status, retry_after)
        self.model = model
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class RateLimited(ModelError):
    """Raised when a model has had too many requests; ``retry_after`` says how long to wait."""


class AuthenticationFailed(ModelError):
    """Raised when a model refuses the key, or what the key may do."""

    retryable = False


class InvalidRequest(ModelError):
    """Raised when a model refuses a request for what it says."""

    retryable = False


class ServiceUnavailable(ModelError):
    """Raised when a model cannot be reached, fails, or takes too long."""


class ResponseInvalid(ModelError):
    """Raised when the answer of a model is not of the form that was asked for."""
