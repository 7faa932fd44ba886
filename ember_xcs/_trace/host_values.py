"""Host values while a function is staged: arrays of handles, of a dtype JAX cannot compute with.

The dtype is that of a random-key implementation of our own whose operations raise, so JAX
indexes, stacks, selects, gathers, scans and batches these arrays, and refuses arithmetic. User
code sees them wrapped in a ``HostValue``, which refuses, with the remedy, what would need the
value itself: text, truth, length, comparison.

A handle is an index into a table that lives for one call of a compiled region.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

from ember_xcs._trace.user_line import user_line
from ember_xcs.errors import TracingError

__all__ = [
    "HOST_DTYPE",
    "HandleTable",
    "HostBatch",
    "HostValue",
    "from_bits",
    "host_aval",
    "is_host_dtype",
    "to_bits",
    "wrap",
]

MARK = "xcs-host-value"
"""Part of the name of the dtype, so that text made of a traced array can be told."""


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise TracingError("a host value was used as a random key; it is not one.", user_line())


_IMPL = define_prng_impl(
    key_shape=(1,),
    seed=_refuse,
    split=_refuse,
    random_bits=_refuse,
    fold_in=_refuse,
    name=MARK,
    tag=MARK,
)


def from_bits(bits: Any) -> jax.Array:
    """Returns handles, from integers of shape ``(*shape, 1)``."""
    handles: jax.Array = jax.random.wrap_key_data(bits, impl=_IMPL)
    return handles


def to_bits(handles: jax.Array) -> jax.Array:
    """Returns the integers of handles, in shape ``(*shape, 1)``."""
    return jax.random.key_data(handles)


HOST_DTYPE: Any = jax.eval_shape(from_bits, jax.ShapeDtypeStruct((1,), jnp.uint32)).dtype


def is_host_dtype(dtype: Any) -> bool:
    """Whether a dtype is that of host values."""
    return bool(dtype == HOST_DTYPE)


def host_aval(shape: tuple[int, ...] = ()) -> jax.core.ShapedArray:
    """Returns the abstract value of an array of host values."""
    return jax.core.ShapedArray(shape, HOST_DTYPE)


class HostBatch(np.ndarray[Any, Any]):
    """Host values side by side: an object array that stands for a batch, not for one object."""


class HandleTable:
    """The objects behind the handles of one region call."""

    __slots__ = ("_objects",)

    def __init__(self) -> None:
        self._objects: list[Any] = []

    def encode(self, value: Any, rank: int) -> np.ndarray[Any, Any]:
        """Returns the handles, as integers, of one object or an object array of them.

        Args:
            value: The object; for a rank above zero, an object array of that rank.
            rank: How many batch axes there are. An object may be an object array itself.
        """
        start = len(self._objects)
        if rank == 0:
            self._objects.append(value)
            return np.array([start], np.uint32)
        self._objects.extend(value.ravel().tolist())
        stop = len(self._objects)
        return np.arange(start, stop, dtype=np.uint32).reshape(*value.shape, 1)

    def decode(self, bits: Any) -> Any:
        """Returns the object, or object array, behind handles given as integers."""
        handles = np.asarray(bits)[..., 0]
        if handles.ndim == 0:
            return self._objects[int(handles)]
        objects = np.empty(handles.shape, object)
        objects.ravel()[:] = [None] * handles.size
        flat = objects.reshape(-1)
        for k, handle in enumerate(handles.reshape(-1).tolist()):
            flat[k] = self._objects[handle]
        return flat.reshape(handles.shape)


@jax.tree_util.register_pytree_with_keys_class
class HostValue:
    """A value of host code in a function that is being staged: known only when it runs.

    It can be passed to operators, put into containers, indexed along its batch axes, chosen among
    by numbers (``answers[jnp.argmax(scores)]``, ``jnp.where(ok, a, b)``, ``jnp.stack``) and
    returned. What needs the value itself is for an operator to do.
    """

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self.array = array

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any]], None]:
        """Returns the array of handles, for JAX."""
        return ((jax.tree_util.GetAttrKey("array"), self.array),), None

    @classmethod
    def tree_unflatten(cls, _aux: None, children: tuple[Any]) -> HostValue:
        """Returns a host value from its array of handles."""
        return cls(children[0])

    def __jax_array__(self) -> jax.Array:
        """Returns the array of handles, for functions of ``jax.numpy``."""
        return self.array  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch axes."""
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        """The number of batch axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many values there are."""
        return int(np.prod(self.shape))

    @property
    def dtype(self) -> Any:
        """The opaque dtype."""
        return HOST_DTYPE

    def __getitem__(self, index: Any) -> HostValue:
        """Returns the values at an index along the batch axes."""
        if self.ndim == 0 or isinstance(index, str):
            what = f"key {index!r}" if isinstance(index, str) else f"index {index!r}"
            _raise(f"{what} of a host value", "declare the fields: let the operator that makes it "
                   "return a record (pydantic model, dataclass, TypedDict), or pick in a @host "
                   "function")  # fmt: skip
        return HostValue(jnp.asarray(self.array)[index])

    def __len__(self) -> int:
        """Returns the size of the first batch axis."""
        if self.ndim == 0:
            _raise("len() of a host value", "take it in a @host function that returns int")
        return self.shape[0]

    def __iter__(self) -> Iterator[HostValue]:
        """Yields the values along the first batch axis."""
        if self.ndim == 0:
            _raise("iteration over a host value", "loop over it in a @host function")
        return (self[k] for k in range(self.shape[0]))

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        """Raises: the value is not known while staging."""
        _raise("the truth of a host value", "let a @host function return bool, and choose with "
               "jnp.where, xcs.cond or xcs.while_loop")  # fmt: skip

    def __repr__(self) -> str:
        return f"HostValue{list(self.shape)}"

    def __str__(self) -> NoReturn:  # noqa: PLE0307
        _raise("str() of a host value", "build text with xcs.Template or in a @host function")

    def __format__(self, spec: str) -> str:
        """Raises: the value is not known while staging."""
        _raise("a host value in an f-string", "build text with xcs.Template or in a @host function")

    def __array__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises: the value is not known while staging."""
        _raise("a host value as a numpy array", "declare what the operator returns, by its "
               "annotation or out=, to use it in numeric code")  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        """Raises: what the value has is not known while staging."""
        if name.startswith("__") or name in ("aval", "sharding", "weak_type"):
            raise AttributeError(name)
        raise HostAttributeError(
            _message(
                f"attribute {name!r} of a host value",
                "declare the fields: let the operator that makes it return a record, or use it in "
                "a @host function",
            ),
            user_line(),
        )


class HostAttributeError(TracingError, AttributeError):
    """Raised when an attribute of a host value is asked for while a function is staged."""


def _message(what: str, remedy: str) -> str:
    return (
        f"{what} was asked for while the function was being staged, when the value is not known "
        f"yet. To mend it: {remedy}; or run the function with mode='structural' or as plain Python."
    )


def _raise(what: str, remedy: str) -> NoReturn:
    raise TracingError(_message(what, remedy), user_line())


def _refusing(symbol: str) -> Any:
    def method(self: HostValue, *_others: Any) -> NoReturn:
        remedy = "do it in a @host function"
        if symbol in ("+", "*", "-", "/", "%"):
            remedy += "; for text xcs.Template, for numbers declare what the operator returns"
        _raise(f"`{symbol}` on a host value", remedy)

    return method


for _name, _symbol in {
    "add": "+", "radd": "+", "sub": "-", "rsub": "-", "mul": "*", "rmul": "*", "truediv": "/",
    "rtruediv": "/", "floordiv": "//", "rfloordiv": "//", "mod": "%", "rmod": "%", "pow": "**",
    "rpow": "**", "matmul": "@", "rmatmul": "@", "and": "&", "rand": "&", "or": "|", "ror": "|",
    "neg": "-", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "contains": "in", "float": "float()", "int": "int()", "index": "an index", "call": "a call",
}.items():  # fmt: skip
    setattr(HostValue, f"__{_name}__", _refusing(_symbol))


def wrap(array: Any) -> Any:
    """Returns an array of handles as a ``HostValue``; any other array as it is."""
    return HostValue(array) if is_host_dtype(array.dtype) else array
