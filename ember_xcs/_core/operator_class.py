"""What makes a class of operators: a dataclass, a pytree, immutable instances."""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar, dataclass_transform

import jax

from ember_xcs._core.layout import Layout, layout_of

__all__ = [
    "OperatorMeta",
    "check_field_name",
    "class_cached",
    "derived",
    "fields_of",
    "instance_only",
    "is_operator",
    "is_operator_class",
    "kept",
    "make_instance",
]

_LAYOUT = "_xcs_layout"
_PRIVATE = ("_xcs_", "__")

T = TypeVar("T")


class derived(Generic[T]):  # noqa: N801  (used as a decorator, as property is)
    """A property that a field of the same name replaces."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        """Returns the value for ``instance``."""
        return self if instance is None else self.compute(instance)  # type: ignore[return-value]


class instance_only(derived[T]):  # noqa: N801  (used as a decorator, as property is)
    """A derived property that the class itself does not seem to have."""

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        """Returns the value for ``instance``."""
        if instance is None:
            raise AttributeError(self.compute.__name__)
        return self.compute(instance)


def kept(operator: Any, key: str, compute: Callable[[], T]) -> T:
    """Returns what ``compute`` gave the first time; it stays with this instance alone."""
    values = operator.__dict__
    if key not in values:
        values[key] = compute()
    return values[key]  # type: ignore[no-any-return]


def class_cached(compute: Callable[[Any], T]) -> Callable[[Any], T]:
    """Caches a function of a class on the class itself, so that it lives as long as the class."""
    key = f"_xcs_{compute.__name__}"

    def cached(cls: Any) -> T:
        if key not in vars(cls):
            setattr(cls, key, compute(cls))
        return vars(cls)[key]  # type: ignore[no-any-return]

    return cached


@dataclass_transform(eq_default=False)
class OperatorMeta(abc.ABCMeta):
    """Makes each operator class a dataclass and a pytree, and its instances immutable."""

    _xcs_computed: frozenset[str]
    _xcs_taken: frozenset[str] = frozenset(
        {"kind", "signature", "output_type", "is_async", "has_batch"}
    )

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> OperatorMeta:
        """Returns the class, with an ``__init__`` from its fields unless it has its own."""
        _check_body(name, namespace)
        for field in namespace.get("__annotations__", ()):
            if field not in namespace and any(hasattr(base, field) for base in bases):
                namespace[field] = _inherited_default(field, bases)
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        cls._xcs_computed = _cached_properties(cls)
        if cls.__module__ == "ember_xcs._core.operator":
            methods = {name for name, value in namespace.items() if inspect.isfunction(value)}
            cls._xcs_taken = cls._xcs_taken | methods
        for field in namespace.get("__annotations__", ()):
            check_field_name(cls, field)
        generated = not _has_own_init(cls)
        make_dataclass: Callable[[type], type] = dataclasses.dataclass(
            init=generated, eq=False, repr=False
        )
        make_dataclass(cls)
        if generated and "__init__" in vars(cls):
            vars(cls)["__init__"].generated_for_fields = True
        jax.tree_util.register_pytree_with_keys(
            cls, _flatten_with_keys, functools.partial(_unflatten, cls), _flatten
        )
        return cls

    @property
    def __signature__(cls) -> inspect.Signature:
        """What a new instance is made with, for ``inspect`` and ``help``."""
        signature = inspect.signature(type.__getattribute__(cls, "__init__"))
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns a new instance, frozen."""
        instance = super().__call__(*args, **kwargs)
        instance.__dict__["_xcs_frozen"] = True
        return instance


def _inherited_default(name: str, bases: tuple[type, ...]) -> Any:
    """The default of a field declared anew: that of the same field in a base, if it was one."""
    for base in bases:
        fields = dataclasses.fields(base) if dataclasses.is_dataclass(base) else ()
        for known in fields:
            if known.name == name:
                return _default_of(known)
    return dataclasses.field()


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)


def _check_body(name: str, namespace: Mapping[str, Any]) -> None:
    if is_operator(namespace.get("forward")):
        raise TypeError(
            f"forward of class {name} is decorated: @pure and @host are for functions. Leave the "
            "decorator out, and make the class a HostOperator if forward is host work."
        )


def check_field_name(cls: type, field: str) -> None:
    """Raises if a field would take the place of something that every operator has.

    Raises:
        TypeError: It would; other properties, such as ``name``, a field may replace.
    """
    if field in cls._xcs_taken:  # type: ignore[attr-defined]
        raise TypeError(
            f"{cls.__name__} has a field {field!r}, which every operator has with a meaning of "
            f"its own. Call the field something else, such as {field}_."
        )


def _cached_properties(cls: type) -> frozenset[str]:
    """The attributes that functools.cached_property puts beside the fields."""
    attributes = (item for base in cls.__mro__ for item in vars(base).items())
    return frozenset(k for k, v in attributes if isinstance(v, functools.cached_property))


def _has_own_init(cls: type) -> bool:
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if init is not None and base is not object:
            return not getattr(init, "generated_for_fields", False)
    return False


def is_operator(value: Any) -> bool:
    """Whether a value is an operator, of whatever kind."""
    return isinstance(type(value), OperatorMeta)


def is_operator_class(value: Any) -> bool:
    """Whether a value is a class of operators."""
    return isinstance(value, OperatorMeta)


def fields_of(operator: Any) -> dict[str, Any]:
    """Returns the fields of an operator by name, without what was computed from them."""
    fields = {k: v for k, v in operator.__dict__.items() if not k.startswith(_PRIVATE)}
    for name in type(operator)._xcs_computed:  # noqa: SLF001  (the class is made here)
        fields.pop(name, None)
    return fields


def make_instance(cls: type[Any], fields: Mapping[str, Any]) -> Any:
    """Returns an instance with these fields, without calling ``__init__``."""
    made = object.__new__(cls)
    made.__dict__.update(fields, _xcs_frozen=True)
    return made


def _layout(operator: Any) -> Layout:
    layout: Layout | None = operator.__dict__.get(_LAYOUT)
    if layout is None:
        layout = layout_of(fields_of(operator), is_operator)
        if "_xcs_frozen" in operator.__dict__:  # in __init__ there are more fields to come
            operator.__dict__[_LAYOUT] = layout
    return layout


def _flatten(operator: Any) -> tuple[list[Any], Layout]:
    layout = _layout(operator)
    return layout.flatten(operator.__dict__), layout


def _flatten_with_keys(operator: Any) -> tuple[list[tuple[Any, Any]], Layout]:
    children, layout = _flatten(operator)
    return list(zip(layout.keys(), children, strict=True)), layout


def _unflatten(cls: type, layout: Layout, children: Iterable[Any]) -> Any:
    made = make_instance(cls, layout.unflatten(list(children)))
    made.__dict__[_LAYOUT] = layout
    return made
