"""Binding and validating the arguments of operators."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._core.pydantic_models import is_model_class, validation_errors
from ember_xcs.errors import OperatorInputError

if TYPE_CHECKING:
    import pydantic

    from ember_xcs._core.operator import Operator
    from ember_xcs._core.signature import Signature

__all__ = [
    "bind_arguments",
    "has_model_fields",
    "is_abstract",
    "summary",
    "validated_arguments",
    "validation_problems",
]


def bind_arguments(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Returns the arguments by parameter; of the defaults, only those of ``input_spec`` filled in.

    Raises:
        OperatorInputError: They do not fit the signature of ``forward``.
    """
    spec = type(operator).input_spec
    try:
        if spec is not None and operator.signature.style == "arguments":
            return _bound_with_defaults(operator.call_parameters, spec, args, kwargs)
        return operator.call_parameters.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(operator.signature.names)
        raise OperatorInputError(
            f"operator {operator.name!r} takes ({names}): {error}. It was given "
            f"{len(args)} positional argument(s) and the keywords {sorted(kwargs) or 'none'}."
        ) from None


def _bound_with_defaults(
    parameters: inspect.Signature, spec: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    bound = parameters.bind_partial(*args, **kwargs)
    given = dict(bound.arguments)
    for name, field in spec.model_fields.items():
        if name in parameters.parameters and name not in given and not field.is_required():
            needs_others = getattr(field, "default_factory_takes_validated_data", False)
            others = {"validated_data": given} if needs_others else {}
            default = field.get_default(call_default_factory=True, **others)
            bound.arguments[name] = given[name] = default
    return parameters.bind(*bound.args, **bound.kwargs)


def is_abstract(value: Any) -> bool:
    """Whether a value holds tracers or host values: its contents are not known yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def validated_arguments(
    operator: Operator, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments after ``input_spec`` and pydantic annotations have validated them.

    Values that are not known yet are left for the run to validate.
    """
    bound = bind_arguments(operator, args, kwargs)
    if is_abstract(bound.arguments):
        return bound.args, bound.kwargs
    spec = type(operator).input_spec
    if spec is not None:
        _apply_spec(operator, spec, bound.arguments)
    for field in operator.signature.fields:
        model = field.annotation
        if field.name in bound.arguments and is_model_class(model):
            bound.arguments[field.name] = _validated(operator, model, bound.arguments[field.name])
    return bound.args, bound.kwargs


def _apply_spec(operator: Operator, spec: type, arguments: dict[str, Any]) -> None:
    inputs_style = operator.signature.style == "inputs"
    given = arguments["inputs"] if inputs_style else arguments
    model = _validated(operator, spec, given)
    values = {name: getattr(model, name) for name in type(model).model_fields}
    if inputs_style:
        arguments["inputs"] = values
    else:
        arguments.update((k, v) for k, v in values.items() if k in arguments)


def has_model_fields(signature: Signature) -> bool:
    """Whether an input field is annotated with a pydantic model."""
    return any(is_model_class(field.annotation) for field in signature.fields)


def _validated(operator: Operator, model: Any, value: Any) -> Any:
    try:
        return model.model_validate(value)
    except validation_errors() as error:
        raise OperatorInputError(
            f"operator {operator.name!r} was given {summary(value)}, which is not a valid "
            f"{model.__name__}: {validation_problems(error)}."
        ) from None


def validation_problems(error: pydantic.ValidationError) -> str:
    """Returns what pydantic found wrong, field by field, without the values."""
    return "; ".join(
        f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}"
        for e in error.errors(include_input=False, include_url=False)
    )


def summary(value: Any) -> str:
    """Returns the type and shape of a value, never its contents."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {summary(v)}" for k, v in list(value.items())[:8]) + "}"
    if isinstance(value, list | tuple):
        inner = f" of {summary(value[0])}" if value else ""
        return f"{type(value).__name__}[{len(value)}]{inner}"
    if isinstance(value, str | bytes):
        return f"{type(value).__name__}[{len(value)}]"
    return type(value).__name__
