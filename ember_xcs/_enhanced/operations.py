"""What rewritten code calls in place of Python's own operations.

An object of this class stands in the constants of rewritten code. Its methods do what the operation
does where all operands are there, and otherwise lift it or wait, as the operation demands.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._enhanced import dispatcher, mutation, regions
from ember_xcs._enhanced.construction import fresh, known_items
from ember_xcs._enhanced.flow import active_flow
from ember_xcs._enhanced.functions import install
from ember_xcs._enhanced.lifting import VIEWS, has_pending, hashable, lift, tuple_of, value_of
from ember_xcs._enhanced.pending import DONE, Pending
from ember_xcs._enhanced.pure import EAGER
from ember_xcs._enhanced.safety import ATOMS, is_plain_attribute, is_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ember_xcs._enhanced.flow import Flow

__all__ = ["EXPOSED", "INLINE", "OPERATIONS", "Operations"]

_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "and_": operator.and_,
    "or_": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "neg": operator.neg,
    "pos": operator.pos,
    "invert": operator.invert,
}


def _operation(compute: Callable[..., Any]) -> Any:
    def apply(*operands: Any) -> Any:
        for value in operands:
            if type(value) not in ATOMS:
                return _applied(compute, operands)
        return compute(*operands)

    return staticmethod(apply)


def _applied(compute: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """Applies an operation to operands of which some are no plain numbers or texts."""
    flow = active_flow()
    if flow is None or flow.eager:
        return compute(*map(value_of, operands))
    if len(operands) == 2 and _makes_list(compute, *operands):
        return fresh(compute(*map(value_of, operands)))
    if has_pending(flow, operands, {}):
        first = operands[0]
        immutable = first.is_immutable if type(first) is Pending else type(first) in ATOMS
        return lift(flow, "expression", compute, operands, {}, immutable=immutable)
    _settle_unless_safe(flow, *operands)
    return compute(*operands)


def _makes_list(compute: Callable[..., Any], left: Any, right: Any) -> bool:
    """Whether an operation makes a list from the items of its operands, whatever they are."""
    if compute is operator.add:
        return type(left) is list and type(right) is list
    if compute is operator.mul:
        return (type(left) is list and type(right) is int) or (
            type(left) is int and type(right) is list
        )
    return False


def _settle_unless_safe(flow: Flow, *values: Any) -> None:
    """Waits for all calls if an operation on these values may run code of the user's."""
    if flow.is_busy and not all(is_safe(type(value)) for value in values):
        flow.settle()


_INDEXED: Final = frozenset({list, dict, tuple, str})


def _contains(container: Any, item: Any) -> bool:
    return item in container


def _lacks(container: Any, item: Any) -> bool:
    return item not in container


_CONVERSIONS: Final[dict[int, Callable[[Any], str]]] = {115: str, 114: repr, 97: ascii}


def _formatted(value: Any, conversion: int, spec: str) -> str:
    if conversion >= 0:
        value = _CONVERSIONS[conversion](value)
    return format(value, spec)


def _joined(*parts: str) -> str:
    return "".join(parts)


class Operations:
    """The operations of rewritten code; ``out`` differs between the two objects of the class."""

    target = staticmethod(dispatcher.target)
    method = staticmethod(dispatcher.method)
    set_item = staticmethod(mutation.set_item)
    delete_item = staticmethod(mutation.delete_item)
    set_attribute = staticmethod(mutation.set_attribute)
    delete_attribute = staticmethod(mutation.delete_attribute)
    fresh = staticmethod(fresh)
    tuple_of = staticmethod(tuple_of)
    value = staticmethod(value_of)
    enter = staticmethod(regions.enter)
    leave = staticmethod(regions.leave)
    failed = staticmethod(regions.failed)
    caught = staticmethod(regions.caught)
    note = staticmethod(regions.note)
    unbound = staticmethod(regions.unbound)
    contains = staticmethod(lambda item, container: _applied(_contains, (container, item)))
    lacks = staticmethod(lambda item, container: _applied(_lacks, (container, item)))

    @staticmethod
    def settle() -> None:
        """Waits for all calls made so far."""
        flow = active_flow()
        if flow is not None and not flow.eager:
            flow.settle()

    @staticmethod
    def exposed(value: Any) -> Any:
        """Returns a value as code may see it that was not rewritten, after all that came before."""
        flow = active_flow()
        if flow is None or flow.eager:
            return value_of(value)
        flow.settle()
        value = value_of(value)
        flow.containers.escape(value)
        return value

    @staticmethod
    def owned(value: Any) -> Any:
        """Returns a value for a variable of an enclosing function of the same program."""
        flow = active_flow()
        if flow is None or flow.eager or flow.tries:
            return Operations.exposed(value)
        return value

    @staticmethod
    def default(value: Any) -> Any:
        """Returns the default of a parameter, which other code can see."""
        if type(value) in ATOMS:
            return value
        flow = active_flow()
        if flow is None or flow.eager or has_pending(flow, (value,), {}):
            return Operations.exposed(value)
        flow.containers.escape(value)
        return value

    @staticmethod
    def ready(value: Any) -> Any:
        """Returns a value after all that came before has ended well."""
        Operations.settle()
        return value_of(value)

    @staticmethod
    def test(value: Any) -> Any:
        """Returns what the truth of a value is that of."""
        if type(value) in ATOMS:
            return value
        value = value_of(value)
        flow = active_flow()
        if flow is not None and not flow.eager:
            _settle_unless_safe(flow, value)
        return value

    @staticmethod
    def attribute(receiver: Any, name: str) -> Any:
        """``receiver.name``."""
        if type(receiver) is not Pending and is_plain_attribute(type(receiver), name):
            return getattr(receiver, name)
        flow = active_flow()
        if type(receiver) is Pending:
            if flow is None or flow.eager or receiver.state == DONE:
                return Operations.attribute(value_of(receiver), name)
            return lift(flow, name, getattr, (receiver, name), {})
        if flow is not None and not flow.eager and flow.is_busy:
            flow.settle()
        return getattr(receiver, name)

    @staticmethod
    def item(container: Any, key: Any) -> Any:
        """``container[key]``."""
        if type(container) in _INDEXED and type(key) in ATOMS:
            return container[key]
        flow = active_flow()
        if type(container) is Pending and container.state == DONE:
            container = container.value
        if flow is None or flow.eager:
            return value_of(container)[value_of(key)]
        if type(container) is Pending:
            if container.elements is not None and type(key) is int:
                return container.elements[key]
            return lift(flow, "item", operator.getitem, (container, key), {})
        if type(key) in ATOMS and type(container) in _INDEXED:
            return container[key]
        if type(key) is slice and type(container) is list:
            return fresh(container[key])
        if has_pending(flow, (key,), {}):
            return lift(flow, "item", operator.getitem, (container, key), {})
        _settle_unless_safe(flow, container, key)
        return container[key]

    @staticmethod
    def slice(start: Any, stop: Any, step: Any) -> slice:
        """``start:stop:step``."""
        return slice(value_of(start), value_of(stop), value_of(step))

    @staticmethod
    def key(value: Any) -> Any:
        """Returns a value that is about to be hashed."""
        return hashable(value)

    @staticmethod
    def format(value: Any, conversion: int, spec: Any) -> Any:
        """Returns a value as part of a text."""
        if type(value) in ATOMS and type(spec) is str:
            return _formatted(value, conversion, spec)
        flow = active_flow()
        if flow is None or flow.eager:
            return _formatted(value_of(value), conversion, value_of(spec))
        if has_pending(flow, (value, spec), {}):
            return lift(flow, "text", _formatted, (value, conversion, spec), {}, immutable=True)
        _settle_unless_safe(flow, value)
        return _formatted(value, conversion, spec)

    @staticmethod
    def text(*parts: Any) -> Any:
        """Returns the parts of a text in a row."""
        for part in parts:
            if type(part) is Pending:
                break
        else:
            return "".join(parts)
        flow = active_flow()
        if flow is None or flow.eager:
            return "".join(map(value_of, parts))
        return lift(flow, "text", _joined, parts, {}, immutable=True)

    @staticmethod
    def iterate(value: Any) -> Any:
        """Returns what a loop over a value goes through."""
        if type(value) is Pending:
            if value.elements is not None:
                return value.elements
            value = value_of(value)
        kind = type(value)
        if kind in (list, tuple, str, range, dict, set, frozenset, bytes):
            return value
        flow = active_flow()
        if flow is None or flow.eager:
            return value
        return _stepwise(flow, value)

    @staticmethod
    def iterate_as(value: Any, shape: tuple[Any, ...]) -> Iterator[Any]:
        """Returns an iterator over what a loop over a value unpacks into several variables."""
        items = iter(Operations.iterate(value))
        return (Operations.unpack(item, shape) for item in items)

    @staticmethod
    def unpack(value: Any, shape: tuple[Any, ...]) -> Any:
        """Returns a value for Python to unpack.

        Args:
            value: What is unpacked.
            shape: The targets: None for a variable, ``"*"`` for a starred one, a tuple for more.
        """
        value = Operations.spread(value)
        if any(type(part) is tuple for part in shape) and "*" not in shape:
            items = list(value)
            if len(items) != len(shape):
                return items
            return [
                Operations.unpack(item, part) if type(part) is tuple else item
                for item, part in zip(items, shape, strict=True)
            ]
        return value

    @staticmethod
    def spread(value: Any) -> Any:
        """Returns what ``*value`` goes through."""
        if type(value) is Pending and value.elements is not None:
            return value.elements
        value = value_of(value)
        if type(value) not in (list, tuple, str, dict, set, range):
            known = known_items(value)
            if known is not None:
                return known
            flow = active_flow()
            if flow is not None and not flow.eager:
                flow.settle()
        return value

    @staticmethod
    def consume(
        function: Any,
        items: Any,
        as_list: Callable[[Any], Any],
        as_generator: Callable[[Any], Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Calls a function with a generator expression, which is a list to those that need all."""
        flow = active_flow()
        is_eager = flow is not None and not flow.eager and _takes_all(function)
        first = as_list(items) if is_eager else as_generator(items)
        return dispatcher.target(function)(first, *args, **kwargs)

    @staticmethod
    def locals(found: dict[str, Any]) -> dict[str, Any]:
        """Returns the variables of the program, as ``locals()`` does."""
        Operations.settle()
        return {k: value_of(v) for k, v in found.items() if not k.startswith("_xcs_")}

    @staticmethod
    def seen(found: dict[str, Any]) -> dict[str, Any]:
        """Returns ``locals()`` itself, as code may see it that is given as a text."""
        for name, value in found.items():
            found[name] = Operations.exposed(value)
        return found

    @staticmethod
    def out(value: Any) -> Any:
        """Returns what a rewritten function returns to its caller."""
        raise NotImplementedError


def _takes_all(function: Any) -> bool:
    try:
        if function in EAGER:
            return True
    except TypeError:  # not hashable
        return False
    return getattr(function, "__name__", "") == "join" and isinstance(
        getattr(function, "__self__", None), str | bytes
    )


def _stepwise(flow: Flow, value: Any) -> Iterator[Any]:
    """Returns an iterator over what may run other code at each step."""
    if type(value) in VIEWS or flow.containers.is_iterator(value):
        return (tuple_of(item) if type(item) is tuple else item for item in value)
    flow.settle()
    return _settled_steps(flow, iter(value))


def _settled_steps(flow: Flow, steps: Iterator[Any]) -> Iterator[Any]:
    while True:
        flow.settle()
        try:
            item = next(steps)
        except StopIteration:
            return
        yield item


class _Inline(Operations):
    """For functions that rewritten code calls: what they return may be pending."""

    @staticmethod
    def out(value: Any) -> Any:
        """Returns the value as it is."""
        return value


class _Exposed(Operations):
    """For functions that any code may call."""

    out = staticmethod(Operations.exposed)


for _name, _function in _OPERATIONS.items():
    setattr(Operations, _name, _operation(_function))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift",
              "rshift"):  # fmt: skip
    _change = getattr(operator, f"i{_name}")

    def _augmented(left: Any, right: Any, change: Any = _change, name: str = _name) -> Any:
        return mutation.in_place(change, getattr(OPERATIONS, name), left, right)

    setattr(Operations, f"i{_name}", staticmethod(_augmented))
for _name in ("and", "or", "xor"):
    _change = getattr(operator, f"i{_name}")
    _plain = {"and": "and_", "or": "or_", "xor": "xor"}[_name]

    def _augmented_bits(left: Any, right: Any, change: Any = _change, name: str = _plain) -> Any:
        return mutation.in_place(change, getattr(OPERATIONS, name), left, right)

    setattr(Operations, f"i{_name}", staticmethod(_augmented_bits))

INLINE: Final = _Inline()
EXPOSED: Final = _Exposed()
OPERATIONS: Final = INLINE
"""The operations themselves; which of the two makes no difference to them."""
install(INLINE, EXPOSED)
