"""Operators made of operators: one after another, side by side, several samples of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ember_xcs._core.functions import as_operator
from ember_xcs._core.operator import Operator
from ember_xcs._core.operator_class import derived
from ember_xcs._core.signature import Signature
from ember_xcs._core.template import Template

if TYPE_CHECKING:
    from ember_xcs._core.outputs import OutputType

__all__ = ["Ensemble", "Parallel", "Sequential", "Template"]


class Sequential(Operator):
    """Operators in a row: the result of each is the input of the next.

    The first receives the arguments of the call. Each of the others receives the whole result
    before it as its one positional argument; one of the form ``forward(self, *, inputs)`` receives
    it as ``inputs``. ``a >> b >> c`` is ``Sequential(a, b, c)``: sequences are opened up.

    Args:
        *operators: Operators, or functions, which are taken for host work; declare those that JAX
            can trace ``@pure``.

    Raises:
        TypeError: There are none, or one is not callable.

    Example:
        >>> from ember_xcs._core.functions import pure
        >>> pipeline = pure(lambda x: x + 1) >> pure(lambda x: x * 10)
        >>> pipeline(2)
        30
        >>> pipeline.kind
        'pure'
    """

    operators: tuple[Operator, ...]

    def __init__(self, *operators: Any) -> None:
        flat: list[Operator] = []
        for operator in map(as_operator, operators):
            flat.extend(operator.operators if type(operator) is Sequential else [operator])
        _check_some(self, flat)
        self.operators = tuple(flat)

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the result of the last operator."""
        first, *others = self.operators
        result = first(*args, **kwargs)
        for operator in others:
            result = _fed(operator, result)
        return result

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the result; its operators validate inputs and results, each once."""
        return self._forwarded(args, kwargs)

    @derived
    def signature(self) -> Signature:
        """The inputs of the first operator, the outputs of the last."""
        first, last = self.operators[0].signature, self.operators[-1].signature
        return Signature(first.fields, first.open, last.outputs, last.returns, first.style)

    @derived
    def output_type(self) -> OutputType:
        """What the last operator declares."""
        return self.operators[-1].output_type


class Parallel(Operator):
    """Operators side by side: each receives the arguments of the call.

    Args:
        *operators: Operators or functions; the result is a tuple, in this order.
        **named: Operators or functions by name; the result is a dict, in this order.

    Raises:
        TypeError: There are none, or some of both forms, or one is not callable.

    Example:
        >>> from ember_xcs._core.functions import pure
        >>> double, square = pure(lambda x: 2 * x), pure(lambda x: x * x)
        >>> Parallel(double, square)(5)
        (10, 25)
        >>> Parallel(double=double, square=square)(5)
        {'double': 10, 'square': 25}
    """

    operators: tuple[Operator, ...]
    names: tuple[str, ...] | None

    def __init__(self, /, *operators: Any, **named: Any) -> None:
        if operators and named:
            raise TypeError(
                f"Parallel was given {len(operators)} operator(s) by position and "
                f"{', '.join(named)} by name; give all of them one way: a tuple of results, or a "
                "dict."
            )
        self.operators = tuple(map(as_operator, operators or named.values()))
        self.names = tuple(named) if named else None
        _check_some(self, self.operators)

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Returns a tuple of results, or a dict where the operators have names."""
        names = self.signature.names
        results = [_given(operator, args, kwargs, names) for operator in self.operators]
        return tuple(results) if self.names is None else dict(zip(self.names, results, strict=True))

    @derived
    def signature(self) -> Signature:
        """The inputs of the first operator; an output for each name."""
        first = self.operators[0].signature
        returns = tuple if self.names is None else dict
        return Signature(first.fields, first.open, self.names, returns, first.style)


class Ensemble(Operator):
    """Several samples of one operator for the same input, as a list.

    Each sample is a call of its own: two calls of a model are never merged into one.

    Args:
        operator: An operator or a function.
        n: The number of samples, at least 1.

    Raises:
        TypeError: ``operator`` is not callable, or ``n`` is not an integer.
        ValueError: ``n`` is less than 1.

    Example:
        >>> Ensemble(str.upper, 3)("yes")
        ['YES', 'YES', 'YES']
    """

    operator: Operator
    n: int

    def __init__(self, operator: Any, n: int) -> None:
        if type(n) is not int:
            raise TypeError(f"Ensemble(op, {n!r}): the number of samples is an integer.")
        if n < 1:
            raise ValueError(f"Ensemble(op, {n}): at least 1 sample is needed.")
        self.operator, self.n = as_operator(operator), n

    def forward(self, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Returns the list of results."""
        return [self.operator(*args, **kwargs) for _ in range(self.n)]

    @derived
    def signature(self) -> Signature:
        """The inputs of the operator."""
        inner = self.operator.signature
        return Signature(inner.fields, inner.open, None, list, inner.style)


def _check_some(composition: Operator, operators: Any) -> None:
    if not operators:
        raise TypeError(
            f"{type(composition).__name__}() has no operators; give it one or more, as in "
            f"{type(composition).__name__}(first, second)."
        )


def _fed(operator: Operator, value: Any) -> Any:
    """Returns what an operator makes of the result before it."""
    return operator(inputs=value) if operator.signature.style == "inputs" else operator(value)


def _given(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]
) -> Any:
    """Calls an operator, by position where it has other names for its inputs."""
    signature = operator.signature
    if args or signature.open or kwargs.keys() <= set(signature.names):
        return operator(*args, **kwargs)
    if kwargs.keys() != set(names[: len(kwargs)]):
        return operator(**kwargs)
    return operator(*(kwargs[name] for name in names[: len(kwargs)]))
