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

__all__ = ["ALL", "END", "Containers", "Snapshot", "fill"]

_ATOMS: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_UNUSED: Final = 3  # fewer references has what only a table here holds
_FIRST_SWEEP: Final = 512
END: Final = object()
ALL: Final = object()


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


def _restore(table: Any, key: Any, before: Any) -> None:
    if key is END:
        del table[before:]
    elif key is not ALL:
        if before is ALL:
            table.pop(key, None)
        else:
            table[key] = before
    elif type(table) is list:
        table[:] = before
    else:
        table.clear()
        table.update(before)


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

    __slots__ = ("_changes", "_fresh", "_iterators", "_sweep_at", "tainted")

    def __init__(self) -> None:
        self._fresh: dict[int, tuple[Any, int]] = {}
        self._iterators: dict[int, Any] = {}
        self._changes: list[tuple[int, Any, Any, Any]] = []
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
        if Pending in map(type, _items_of(container)):
            self.tainted[id(container)] = container

    def is_fresh(self, container: Any, since: int) -> bool:
        """Whether a container may be changed at once.

        Args:
            container: Any object.
            since: The time at which the innermost ``try`` was entered.
        """
        known = self._fresh.get(id(container))
        return known is not None and known[1] >= since

    def changing(self, stamp: int, container: Any, key: Any) -> None:
        """Notes what a container is, which is about to be changed while calls may yet fail.

        Args:
            stamp: When: the time of the run.
            container: A list, dict, set or record.
            key: What of it is changed: a key, ``END`` for the end of a list, ``ALL``.
        """
        table = container if type(container) in (list, dict, set) else vars(container)
        if key is END:
            before: Any = len(table)
        elif key is ALL or type(table) is not dict:
            key, before = ALL, table.copy()
        else:
            before = table.get(key, ALL)
        self._changes.append((stamp, table, key, before))

    def undo(self, order: int) -> None:
        """Takes back the changes that came after a call that failed."""
        for stamp, table, key, before in reversed(self._changes):
            if stamp < order:
                break
            _restore(table, key, before)
        self._changes.clear()

    def keep(self) -> None:
        """Forgets how to take changes back: all calls before them have ended well."""
        self._changes.clear()

    def holds(self, value: Any) -> bool:
        """Whether a value is a container in which there may be pending values."""
        return id(value) in self._fresh or id(value) in self.tainted

    def has_pending(self, value: Any) -> bool:
        """Whether there is a pending value in a value, however deep."""
        return bool(self.tainted) and self._has_pending(value)

    def _has_pending(self, value: Any) -> bool:
        waiting, seen = [value], set()
        while waiting:
            value = waiting.pop()
            if type(value) is Pending or id(value) in self.tainted:
                return True
            is_ours = type(value) is tuple or id(value) in self._fresh
            if is_ours and id(value) not in seen and type(value) is not set:
                seen.add(id(value))
                waiting += [item for item in _items_of(value) if type(item) not in _ATOMS]
        return False

    def escape(self, value: Any) -> None:
        """Forgets that what is in a value is fresh: other code has seen it."""
        waiting, seen = [value], set()
        while waiting:
            value = waiting.pop()
            if type(value) is tuple:
                if id(value) not in seen:
                    seen.add(id(value))
                    waiting += value
            elif type(value) is Pending:
                waiting.append(value.elements if value.state < DONE else value.value)
            elif self._fresh.pop(id(value), None) is not None:
                if type(value) is not set:
                    waiting += [i for i in _items_of(value) if type(i) not in _ATOMS]
            elif type(value) is types.FunctionType and value.__closure__:
                self._escape_cells(value, set())

    def _escape_cells(self, function: types.FunctionType, seen: set[int]) -> None:
        """The same for the variables of a function, which other code can reach through it."""
        seen.add(id(function))
        for cell in function.__closure__ or ():
            try:
                contents = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if type(contents) is types.FunctionType:
                if id(contents) not in seen:
                    self._escape_cells(contents, seen)
                continue
            self.escape(contents)
            if type(contents) is Pending and contents.state == DONE:
                cell.cell_contents = contents.value

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
