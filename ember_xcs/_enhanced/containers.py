"""The containers that the program made itself, and the pending values in them.

A list, dict or set that rewritten code has made, and that no other code has seen, is *fresh*: it
may be changed at once, whatever becomes of the calls in flight, and may hold pending values. So is
a *record*: an instance of a dataclass that only stores what it is given. Pending values are thus
only ever found in variables and in fresh containers, and those that hold some (*tainted* ones) are
known one by one.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._enhanced.pending import DONE, Hole, Pending

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Containers", "Snapshot", "fill"]

_ATOMS: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_UNUSED: Final = 3  # fewer references has what only a table here holds
_FIRST_SWEEP: Final = 512


class Snapshot:
    """Arguments as they are now: fresh containers copied, the places of pending values noted.

    Attributes:
        args: By position.
        kwargs: By name.
        holes: What is missing, innermost first.
        originals: What each copy was made of, by the identity of the copy.
    """

    __slots__ = ("_containers", "_memo", "args", "holes", "kwargs", "originals")

    def __init__(self, containers: Containers, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
        self._containers = containers
        self._memo: dict[int, Any] = {}
        self.args, self.kwargs = list(args), kwargs
        self.holes: list[Hole] = []
        self.originals: dict[int, tuple[Any, Any]] = {}
        self._fill_items(self.args)
        for name, value in kwargs.items():
            if type(value) not in _ATOMS:
                self._fill(kwargs, name, value)

    def _fill_items(self, items: list[Any]) -> None:
        for k, item in enumerate(items):
            if type(item) not in _ATOMS:
                self._fill(items, k, item)

    def _fill(self, place: Any, key: Any, value: Any) -> None:
        if type(value) is Pending:
            if value.state == DONE:
                self._fill(place, key, value.value)
            elif value.elements is not None:
                self._fill_tuple(place, key, value.elements)
            else:
                self.holes.append((place, key, value))
        elif type(value) is tuple:
            self._fill_tuple(place, key, value)
        else:
            place[key] = self._copy(value) if self._containers.holds(value) else value

    def _fill_tuple(self, place: Any, key: Any, elements: tuple[Any, ...]) -> None:
        if all(type(item) in _ATOMS for item in elements):
            place[key] = elements
            return
        items, before = list(elements), len(self.holes)
        self._fill_items(items)
        if len(self.holes) > before:
            self.holes.append((place, key, items))
        elif any(a is not b for a, b in zip(items, elements, strict=True)):
            place[key] = tuple(items)
        else:
            place[key] = elements

    def _copy(self, value: Any) -> Any:
        known = self._memo.get(id(value))
        if known is not None:
            return known
        copy = self._memo[id(value)] = _copy_of(value)
        self.originals[id(copy)] = (copy, value)
        if type(copy) is list:
            self._fill_items(copy)
        elif type(copy) is not set:
            table = copy if type(copy) is dict else vars(copy)
            for key, item in table.items():
                if type(item) not in _ATOMS:
                    self._fill(table, key, item)
        return copy


def _copy_of(container: Any) -> Any:
    if type(container) in (list, dict, set):
        return container.copy()
    copy = object.__new__(type(container))
    vars(copy).update(vars(container))
    return copy


def _items_of(container: Any) -> Iterable[Any]:
    """What is directly in a container."""
    if type(container) in (list, set, tuple):
        items: Iterable[Any] = container
        return items
    return (container if type(container) is dict else vars(container)).values()


def fill(node: Pending) -> None:
    """Puts the values that are there now where operands were missing.

    What came of an expression on copies is taken as it was, since the program's own containers may
    still have pending values in them.
    """
    for place, key, source in node.holes:
        if type(source) is not Pending:
            place[key] = tuple(source)
        elif source.copied is None:
            place[key] = source.value
        else:
            place[key], originals = source.copied
            node.originals = {**(node.originals or {}), **originals}


class Containers:
    """The fresh containers of a run, and those with pending values in them.

    Attributes:
        tainted: Containers with pending values directly in them, by identity.
    """

    __slots__ = ("_fresh", "_iterators", "_sweep_at", "tainted")

    def __init__(self) -> None:
        self._fresh: dict[int, tuple[Any, int]] = {}
        self._iterators: dict[int, Any] = {}
        self.tainted: dict[int, Any] = {}
        self._sweep_at = _FIRST_SWEEP

    def add(self, container: Any, stamp: int) -> None:
        """Notes a container that the program has just made.

        Args:
            container: A list, dict or set.
            stamp: When: the time of the run.
        """
        self._fresh[id(container)] = (container, stamp)
        if type(container) is not set:
            self.look(container)
        if len(self._fresh) > self._sweep_at:
            self._sweep()

    def add_iterator(self, iterator: Any) -> None:
        """Notes an iterator over containers, whose steps run no other code."""
        self._iterators[id(iterator)] = iterator
        if len(self._iterators) > _FIRST_SWEEP:
            for key in list(self._iterators):
                if sys.getrefcount(self._iterators[key]) < _UNUSED:
                    del self._iterators[key]

    def is_iterator(self, value: Any) -> bool:
        """Whether a value is an iterator whose steps run no other code."""
        return id(value) in self._iterators

    def look(self, container: Any) -> None:
        """Notes whether there are pending values in a container."""
        for item in _items_of(container):
            if type(item) is Pending:
                self.tainted[id(container)] = container
                return

    def is_fresh(self, container: Any, since: int) -> bool:
        """Whether a container may be changed at once.

        Args:
            container: Any object.
            since: The time at which the innermost ``try`` was entered.
        """
        known = self._fresh.get(id(container))
        return known is not None and known[1] >= since

    def holds(self, value: Any) -> bool:
        """Whether a value is a container in which there may be pending values."""
        return id(value) in self._fresh or id(value) in self.tainted

    def has_pending(self, value: Any) -> bool:
        """Whether there is a pending value in a value, however deep."""
        return bool(self.tainted) and self._has_pending(value, set())

    def _has_pending(self, value: Any, seen: set[int]) -> bool:
        if id(value) in self.tainted:
            return True
        if type(value) is Pending:
            return True
        if type(value) is not tuple and id(value) not in self._fresh:
            return False
        if id(value) in seen or type(value) is set:
            return False
        seen.add(id(value))
        return any(type(i) not in _ATOMS and self._has_pending(i, seen) for i in _items_of(value))

    def escape(self, value: Any) -> None:
        """Forgets that what is in a value is fresh: other code has seen it."""
        if type(value) is tuple:
            for item in value:
                self.escape(item)
        elif type(value) is Pending:
            self.escape(value.elements if value.state < DONE else value.value)
        elif self._fresh.pop(id(value), None) is not None:
            if type(value) is not set:
                for item in _items_of(value):
                    self.escape(item)
        elif type(value) is types.FunctionType and value.__closure__:
            for cell in value.__closure__:
                self._escape_cell(cell)

    def _escape_cell(self, cell: types.CellType) -> None:
        try:
            contents = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        if type(contents) is not types.FunctionType:
            self.escape(contents)

    def resolve(self) -> None:
        """Puts values in place of the pending ones, all of which are there now."""
        tainted, self.tainted = self.tainted, {}
        for container in tainted.values():
            if type(container) is list:
                for k, item in enumerate(container):
                    if type(item) is Pending and item.state == DONE:
                        container[k] = item.value
            else:
                table = container if type(container) is dict else vars(container)
                for key, item in table.items():
                    if type(item) is Pending and item.state == DONE:
                        table[key] = item.value

    def _sweep(self) -> None:
        """Forgets the containers that the program has no more use for."""
        for key in list(self._fresh):
            if sys.getrefcount(self._fresh[key][0]) < _UNUSED and key not in self.tainted:
                del self._fresh[key]
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._fresh))
