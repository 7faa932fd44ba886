"""Plumbing: operators that put values together and take them apart, and compute nothing.

They are of the kind ``"glue"``: deterministic, cheap, never blocking, and indifferent to
whether the values that pass through them are traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax

from ember_xcs._core.arguments import bind_arguments, validated_arguments
from ember_xcs._core.operator import HostOperator, Kind, Operator
from ember_xcs._core.operator_class import derived, is_operator
from ember_xcs._core.policy import HostPolicy
from ember_xcs._core.records import make_record
from ember_xcs._core.signature import Field, Signature, record_fields

if TYPE_CHECKING:
    from ember_xcs._core.outputs import OutputType

__all__ = [
    "Applied",
    "CheckInputs",
    "CheckOutput",
    "Form",
    "Glue",
    "HostApplied",
    "Pack",
    "Pick",
    "Step",
    "applied",
    "path_text",
    "split_form",
]

Step = tuple[str, Any]
"""One step into a value: ``("item", key)`` is ``value[key]``, ``("attribute", name)`` a field."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """A value with holes: containers and constants, in which parts are to be put.

    Attributes:
        kind: ``"part"`` (a hole), ``"constant"``, ``"list"``, ``"tuple"``, ``"dict"``,
            ``"record"``, or ``"tree"`` for other containers that JAX knows.
        about: The constant, the class of the record, or the structure of the tree.
        keys: The keys of a dict, the fields of a record.
        children: The forms of the items.
    """

    kind: str
    about: Any = None
    keys: tuple[Any, ...] = ()
    children: tuple[Form, ...] = ()

    def build(self, parts: Iterable[Any]) -> Any:
        """Returns the value with these parts in its holes; all its containers are new."""
        return self._built(iter(parts))

    def _built(self, parts: Iterator[Any]) -> Any:
        if self.kind == "part":
            return next(parts)
        if self.kind == "constant":
            return self.about
        return _BUILDERS[self.kind](self, [child._built(parts) for child in self.children])  # noqa: SLF001


_BUILDERS: dict[str, Callable[[Form, list[Any]], Any]] = {
    "list": lambda _form, items: items,
    "tuple": lambda _form, items: tuple(items),
    "dict": lambda form, items: dict(zip(form.keys, items, strict=True)),
    "record": lambda form, items: make_record(form.about, dict(zip(form.keys, items, strict=True))),
    "tree": lambda form, items: form.about.unflatten(items),
}

_HOLE = Form("part")


def split_form(value: Any, is_part: Callable[[Any], bool]) -> tuple[Form, list[Any]]:
    """Returns the form of a value and its parts, in order.

    Args:
        value: A tree of lists, tuples, dicts, records and whatever else JAX knows as a container.
        is_part: Says whether a value is a part; what is not is opened or constant.

    Example:
        >>> form, parts = split_form({"a": [1, "x"], "b": 2}, lambda v: type(v) is int)
        >>> parts, form.build([3, 4])
        ([1, 2], {'a': [3, 'x'], 'b': 4})
    """
    parts: list[Any] = []
    return _split(value, is_part, parts), parts


def _split(value: Any, is_part: Callable[[Any], bool], parts: list[Any]) -> Form:
    if is_part(value):
        parts.append(value)
        return _HOLE
    opened = opened_container(value)
    if opened is None:
        return Form("constant", value)
    kind, about, keys, items = opened
    known = len(parts)
    children = tuple(_split(item, is_part, parts) for item in items)
    if len(parts) == known and kind in ("record", "tree"):
        return Form("constant", value)
    return Form(kind, about, keys, children)


def opened_container(value: Any) -> tuple[str, Any, tuple[Any, ...], Sequence[Any]] | None:
    """Returns the kind of a container, what its form is about, its keys and its items."""
    cls = type(value)
    if cls is list or cls is tuple:
        return cls.__name__, None, (), value
    if cls is dict:
        return "dict", None, tuple(value), tuple(value.values())
    if is_operator(value) or value is None:
        return None
    names = tuple(record_fields(cls) or ())
    if names and all(hasattr(value, name) for name in names):
        return "record", cls, names, [getattr(value, name) for name in names]
    items, structure = jax.tree.flatten(value, is_leaf=lambda node: node is not value)
    if jax.tree_util.treedef_is_leaf(structure):
        return None
    return "tree", structure, (), items


class Glue(Operator):
    """What operators that compute nothing share; stands before ``HostOperator`` as a base."""

    @derived
    def kind(self) -> Kind:
        """``"glue"``."""
        return "glue"

    @derived
    def policy(self) -> HostPolicy:
        """Inline and deterministic."""
        return HostPolicy(executor="inline", deterministic=True)


class Pack(Glue):
    """Puts values into a container: its inputs ``item0``, ``item1``, ... fill the holes of a form.

    Example:
        >>> form, _ = split_form(["hole", {"k": "hole"}, 7], lambda v: v == "hole")
        >>> Pack(form)(1, 2)
        [1, {'k': 2}, 7]
    """

    form: Form

    def forward(self, *items: Any) -> Any:
        """Returns the container."""
        return self.form.build(items)

    @derived
    def name(self) -> str:
        """``"pack"``."""
        return "pack"

    @derived
    def signature(self) -> Signature:
        """An input for each hole."""
        return Signature(tuple(Field(f"item{k}") for k in range(_holes(self.form))))


def _holes(form: Form) -> int:
    return 1 if form.kind == "part" else sum(map(_holes, form.children))


class Pick(Glue):
    """Takes a part of a value, as Python does: ``value.score[0]``.

    Example:
        >>> pick = Pick((("item", "scores"), ("item", 0)))
        >>> pick.name, pick({"scores": [0.5, 0.25]})
        ("pick ['scores'][0]", 0.5)
    """

    path: tuple[Step, ...]

    def forward(self, value: Any) -> Any:
        """Returns the part."""
        for kind, key in self.path:
            value = value[key] if kind == "item" else getattr(value, key)
        return value

    @derived
    def name(self) -> str:
        """``"pick"`` and the path."""
        return f"pick {path_text(self.path)}".rstrip()


def path_text(path: Iterable[Step]) -> str:
    """Returns a path as Python writes it.

    Example:
        >>> path_text([("attribute", "score"), ("item", 0)])
        '.score[0]'
    """
    return "".join(f"[{key!r}]" if kind == "item" else f".{key}" for kind, key in path)


class CheckInputs(Glue):
    """Validates the arguments of an operator whose calls were opened into those that it makes.

    Returns them as the operator's ``forward`` would receive them, by parameter.
    """

    operator: Operator
    parameters: tuple[str, ...]

    def forward(self, *values: Any) -> dict[str, Any]:
        """Returns the validated arguments by parameter."""
        given = dict(zip(self.parameters, values, strict=True))
        args, kwargs = validated_arguments(self.operator, (), given)
        return dict(bind_arguments(self.operator, args, kwargs).arguments)

    @derived
    def name(self) -> str:
        """``"check"`` and the operator."""
        return f"check inputs of {self.operator.name}"

    @derived
    def signature(self) -> Signature:
        """An input for each parameter that was given."""
        return Signature(tuple(map(Field, self.parameters)), returns=dict[str, Any])


class CheckOutput(Glue):
    """Checks a value against what an operator declares to return.

    Attributes:
        operator: The operator, for its declaration.
    """

    operator: Operator

    def forward(self, value: Any) -> Any:
        """Returns the value, checked and, for models, coerced."""
        return self.operator.output_type.validated(value, self.operator.name)

    @derived
    def name(self) -> str:
        """``"check"`` and the operator."""
        return f"check output of {self.operator.name}"

    @derived
    def signature(self) -> Signature:
        """One input, and the outputs of the operator."""
        declared = self.operator.signature
        return Signature((Field("value"),), outputs=declared.outputs, returns=declared.returns)


def _applied_signature(operator: Operator, fields: tuple[str, ...], positional: int) -> Signature:
    declared = operator.signature
    known = tuple(
        declared.field(name) or Field(name, positional=k < positional)
        for k, name in enumerate(fields)
    )
    return dataclasses.replace(declared, fields=known, open=False)


class Applied(Operator):
    """An operator as one call uses it: with these input fields, and no others.

    It is for operators that take any number of values (``*docs``) or any names (``**fields``).

    Attributes:
        operator: What is called.
        fields: The names of its inputs.
        positional: How many of the first ones are passed by position; the others, if they are no
            parameters of the operator, by name.
    """

    operator: Operator
    fields: tuple[str, ...]
    positional: int = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the operator returns."""
        return self.operator.forward(*args, **kwargs)

    @derived
    def name(self) -> str:
        """The name of the operator."""
        return self.operator.name

    @derived
    def kind(self) -> Kind:
        """The kind of the operator."""
        return self.operator.kind

    @derived
    def signature(self) -> Signature:
        """The inputs of the call."""
        return _applied_signature(self.operator, self.fields, self.positional)

    @derived
    def output_type(self) -> OutputType:
        """What the operator declares to return."""
        return self.operator.output_type

    @derived
    def validates_inputs(self) -> bool:
        """Whether the operator validates its inputs."""
        return self.operator.validates_inputs

    def run(self, args: Any, kwargs: Any) -> Any:
        """Returns what the operator returns, validated by it."""
        return self.operator.run(args, kwargs)


class HostApplied(HostOperator):
    """``Applied`` for host operators."""

    operator: HostOperator
    fields: tuple[str, ...]
    positional: int = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the operator returns."""
        return self.operator.forward(*args, **kwargs)

    @derived
    def name(self) -> str:
        """The name of the operator."""
        return self.operator.name

    @derived
    def is_async(self) -> bool:
        """Whether the operator is async."""
        return self.operator.is_async

    @derived
    def policy(self) -> HostPolicy:
        """The policy of the operator."""
        return self.operator.policy

    @derived
    def signature(self) -> Signature:
        """The inputs of the call."""
        return _applied_signature(self.operator, self.fields, self.positional)

    @derived
    def output_type(self) -> OutputType:
        """What the operator declares to return."""
        return self.operator.output_type

    @derived
    def validates_inputs(self) -> bool:
        """Whether the operator validates its inputs."""
        return self.operator.validates_inputs

    def start(self, args: Any, kwargs: Any) -> Any:
        """Returns what the operator returns, or a coroutine of it."""
        return self.operator.start(args, kwargs)


def applied(operator: Operator, fields: Iterable[str], positional: int = 0) -> Operator:
    """Returns an operator that takes these fields and no others; the first ones by position."""
    if isinstance(operator, HostOperator):
        return HostApplied(operator, tuple(fields), positional)
    return Applied(operator, tuple(fields), positional)
