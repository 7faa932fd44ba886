"""Operators: the unit of work of a graph, and JAX pytrees."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

import jax

from ember_xcs._core import calls
from ember_xcs._core.arguments import bind_arguments, has_model_fields, validated_arguments
from ember_xcs._core.convert import to_host
from ember_xcs._core.jax_state import under_jax_trace
from ember_xcs._core.operator_class import (
    OperatorMeta,
    check_field_name,
    class_cached,
    derived,
    fields_of,
    is_operator,
    kept,
    make_instance,
)
from ember_xcs._core.outputs import OutputType, output_type
from ember_xcs._core.policy import HostPolicy
from ember_xcs._core.retry import Retry
from ember_xcs._core.signature import Field, Signature, callable_signature
from ember_xcs.errors import OptionsError

__all__ = ["HostOperator", "Kind", "Operator", "sub_operators"]

Kind = Literal["pure", "host", "composite", "glue"]


class Operator(metaclass=OperatorMeta):
    """A unit of work: fields, and a ``forward`` that says what it computes from its inputs.

    Fields are declared as in a dataclass, or set in an ``__init__`` of your own. After that an
    operator does not change. It is a JAX pytree: arrays and operators in its fields are leaves
    and branches, the rest is static. It is pure (JAX can trace it, it has no side effects)
    unless it contains host operators.

    Attributes:
        input_spec: A pydantic model that the inputs are validated against, and whose defaults stand
            for inputs that are not given; None for none.
        output_spec: A pydantic model that the result is validated against; None for none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> class Scale(Operator):
        ...     factor: jax.Array
        ...
        ...     def forward(self, x):
        ...         return self.factor * x
        >>> scale = Scale(jnp.float32(3))
        >>> print(scale(2.0))
        6.0
        >>> print(scale.replace(factor=jnp.float32(5))(2.0))
        10.0
    """

    input_spec: ClassVar[type[Any] | None] = None
    output_spec: ClassVar[type[Any] | None] = None
    _is_host: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Checks that only host operators are ``async def``."""
        super().__init_subclass__(**kwargs)
        if inspect.iscoroutinefunction(cls.forward) and not cls._is_host:
            raise TypeError(
                f"{cls.__name__}.forward is `async def`, which is host work; make the class a "
                "HostOperator."
            )

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the result; to be overridden."""
        raise TypeError(
            f"{type(self).__name__} has no forward method: an operator says what it computes in "
            "`def forward(self, ...)`. Add one."
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the result for these arguments.

        Raises:
            OperatorInputError: The arguments do not fit the signature or the input specification.
            OperatorOutputError: The result is not what the operator declares.
        """
        recorder = calls.current_recorder()
        if recorder is not None:
            return recorder(self, args, kwargs)
        return self._invoke(args, kwargs)

    def _invoke(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Answers a call that nothing records."""
        if not under_jax_trace():
            return self.run(args, kwargs)
        with jax.named_scope(str(self.name)):
            return self.run(args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of ``forward``, with its inputs and its result validated."""
        if self.validates_inputs:
            args, kwargs = validated_arguments(self, args, kwargs)
        output = self.output_type
        result = self._forwarded(args, kwargs)
        return result if output.is_host else output.validated(result, self.name)

    def _forwarded(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what ``forward`` returns; async operators that it calls are run to their end."""
        try:
            if not calls.in_event_loop():
                return self.forward(*args, **kwargs)
            return calls.call_plain_code(self.forward, args, kwargs)
        except TypeError:
            bind_arguments(self, args, kwargs)  # raises if it is the arguments that do not fit
            raise

    @derived
    def name(self) -> str:
        """What the operator is called in graphs and messages."""
        return type(self).__name__

    @derived
    def kind(self) -> Kind:
        """``"pure"``, ``"host"``, ``"composite"`` (contains host work) or ``"glue"``."""
        return kept(self, "_xcs_kind", lambda: _kind_by_contents(self))

    @derived
    def signature(self) -> Signature:
        """The input and output fields."""
        return _class_signature(type(self))

    @derived
    def output_type(self) -> OutputType:
        """What the operator declares to return."""
        return _class_output_type(type(self))

    @derived
    def validates_inputs(self) -> bool:
        """Whether calls have arguments that a pydantic model checks."""
        return _class_validates(type(self))

    @derived
    def call_parameters(self) -> inspect.Signature:
        """What a call binds its arguments to."""
        return _class_parameters(type(self))

    def replace(self, **fields: Any) -> Self:
        """Returns a copy with other values in these fields.

        Raises:
            TypeError: A name is not a field of the operator.
        """
        unknown = fields.keys() - fields_of(self).keys()
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {min(unknown)!r}; its fields are "
                f"{', '.join(fields_of(self)) or 'none'}."
            )
        copy: Self = make_instance(type(self), {**fields_of(self), **fields})
        return copy

    def __rshift__(self, following: Operator | Callable[..., Any]) -> Operator:
        """Returns ``Sequential(self, following)``."""
        return _composition(self, following)

    def __rrshift__(self, preceding: Callable[..., Any]) -> Operator:
        """Returns ``Sequential(preceding, self)``."""
        return _composition(preceding, self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a field during ``__init__``; raises afterwards."""
        if "_xcs_frozen" in self.__dict__:
            raise dataclasses.FrozenInstanceError(
                f"cannot set {name!r}: a {type(self).__name__} does not change once made; "
                f"op.replace({name}=...) returns a changed copy."
            )
        check_field_name(type(self), name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        """Deletes a field during ``__init__``; raises afterwards."""
        if "_xcs_frozen" in self.__dict__:
            raise dataclasses.FrozenInstanceError(f"cannot delete {name!r} of an operator.")
        object.__delattr__(self, name)

    def __repr__(self) -> str:
        fields = ", ".join(f"{k}={_short(v)}" for k, v in fields_of(self).items())
        return f"{type(self).__name__}({fields})"

    def __getstate__(self) -> dict[str, Any]:
        return dict(fields_of(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _xcs_frozen=True)


def _kind_by_contents(operator: Operator) -> Kind:
    return "pure" if all(op.kind == "pure" for op in sub_operators(operator)) else "composite"


class HostOperator(Operator):
    """An operator of host work: a model call, a tool, I/O; plain Python that JAX never traces.

    Override ``forward`` (``def`` or ``async def``), and ``forward_batch`` where several calls
    can be answered at once: it takes the same parameters, each a list with one entry for each
    call, and returns a list of results; an exception among them is the failure of that call. Calls
    that are ready at the same time go there together, from wherever in a graph they are; with a
    ``batch_window_seconds`` a call that is ready waits for others, so long at most. Policies are
    class attributes: ``policy = HostPolicy(...)``, or single ones, as in ``deterministic = True``.
    ``out`` says what is returned where the annotation does not; a field or property of that name
    holds for each instance.

    Example:
        >>> class Shout(HostOperator):
        ...     mark: str = "!"
        ...
        ...     def forward(self, text: str) -> str:
        ...         return text.upper() + self.mark
        >>> Shout()("hello")
        'HELLO!'
    """

    _is_host: ClassVar[bool] = True
    executor: ClassVar[str | None] = None
    deterministic: ClassVar[bool] = False
    side_effects: ClassVar[bool] = False
    timeout: ClassVar[float | None] = None
    max_batch_size: ClassVar[int | None] = None
    batch_window_seconds: ClassVar[float | None] = None
    resource: ClassVar[str | None] = None
    retry: ClassVar[Retry | None] = None
    out: ClassVar[Any] = None
    vjp: ClassVar[Callable[..., Any] | None] = None

    def _invoke(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if under_jax_trace():
            return calls.stager()(self, args, kwargs)
        policies = calls.policies_in_force.get()
        if policies is not None and self.kind == "host":
            return policies.direct(self, args, kwargs)
        return self.run(args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result of ``forward``, with its inputs and its result validated."""
        result = self.start(args, kwargs)
        return calls.await_or_return(result) if self.is_async else result

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result for arguments as callers have them; a coroutine if it is async."""
        args, kwargs = self.prepared(args, kwargs)
        result = self._forwarded(args, kwargs)
        return self._finish_later(result) if self.is_async else self.finished(result)

    def prepared(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Returns the arguments validated, and as ``forward`` is to receive them."""
        if self.validates_inputs:
            args, kwargs = validated_arguments(self, args, kwargs)
        return to_host(self, args, kwargs)

    async def _finish_later(self, result: Any) -> Any:
        return self.finished(await result)

    def finished(self, result: Any) -> Any:
        """Returns a result of ``forward`` after checking it against the declaration."""
        output = self.output_type
        return result if output.is_host else output.validated(result, self.name)

    @derived
    def kind(self) -> Kind:
        """``"host"``."""
        return "host"

    @derived
    def is_async(self) -> bool:
        """Whether ``forward`` is a coroutine function."""
        return _class_is_async(type(self))

    @derived
    def policy(self) -> HostPolicy:
        """How its calls are to be run."""
        default = "async" if self.is_async else "thread"
        if self.batch_window_seconds and not self.has_batch:
            raise OptionsError(
                f"{type(self).__name__} has batch_window_seconds={self.batch_window_seconds!r}, "
                "and no forward_batch for which calls could wait for one another. Add one, or "
                "leave batch_window_seconds out."
            )
        return HostPolicy(
            executor=self.executor or default,
            deterministic=self.deterministic,
            side_effects=self.side_effects,
            timeout_seconds=self.timeout,
            max_batch_size=self.max_batch_size,
            batch_window_seconds=self.batch_window_seconds,
            resource=self.resource,
            retry=self.retry,
            vjp=type(self).vjp,
        )

    @derived
    def output_type(self) -> OutputType:
        """What the operator declares to return; ``out`` of the instance comes first."""
        out = self.out
        if out is getattr(type(self), "out", None):
            return _class_output_type(type(self))
        spec, returns = type(self).output_spec, self.signature.returns
        return kept(self, "_xcs_output_type", lambda: output_type(returns, out=out, spec=spec))

    @derived
    def has_batch(self) -> bool:
        """Whether there is a ``forward_batch``."""
        return callable(getattr(self, "forward_batch", None))


def sub_operators(operator: Operator) -> Iterator[Operator]:
    """Yields the operators directly in the fields of ``operator``, in containers too."""
    for value in fields_of(operator).values():
        if isinstance(value, Operator):
            yield value
        elif not isinstance(value, jax.Array | str):
            leaves = jax.tree.leaves(value, is_leaf=is_operator)
            yield from (leaf for leaf in leaves if isinstance(leaf, Operator))


def _short(value: Any) -> str:
    if isinstance(value, jax.Array) or hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)


def _composition(first: Any, second: Any) -> Operator:
    from ember_xcs._core.composition import Sequential  # noqa: PLC0415  (built on this module)

    pipeline: Operator = Sequential(first, second)
    return pipeline


@class_cached
def _class_is_async(cls: type[Operator]) -> bool:
    return inspect.iscoroutinefunction(cls.forward)


@class_cached
def _class_parameters(cls: type[Operator]) -> inspect.Signature:
    signature = inspect.signature(cls.forward)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


@class_cached
def _class_signature(cls: type[Operator]) -> Signature:
    signature = callable_signature(cls.forward, skip_first=True)
    if cls.input_spec is not None and signature.style == "inputs":
        fields = tuple(
            Field(name, required=field.is_required(), annotation=field.annotation, positional=False)
            for name, field in cls.input_spec.model_fields.items()
        )
        signature = dataclasses.replace(signature, fields=fields, open=False)
    elif cls.input_spec is not None:
        optional = {n for n, f in cls.input_spec.model_fields.items() if not f.is_required()}
        fields = tuple(
            dataclasses.replace(f, required=f.required and f.name not in optional)
            for f in signature.fields
        )
        signature = dataclasses.replace(signature, fields=fields)
    if cls.output_spec is not None:
        signature = dataclasses.replace(signature, outputs=tuple(cls.output_spec.model_fields))
    return signature


@class_cached
def _class_output_type(cls: type[Operator]) -> OutputType:
    out = getattr(cls, "out", None)
    return output_type(_class_signature(cls).returns, out=out, spec=cls.output_spec)


@class_cached
def _class_validates(cls: type[Operator]) -> bool:
    return cls.input_spec is not None or has_model_fields(_class_signature(cls))
