"""Leaves of a program: code that runs as it was written, since all it touches is plain data.

Whether it may is seen anew at each run: what its names stand for, that all it reads is data with
nothing pending in it, and that what it may change is the program's own, or nothing is in flight.
Otherwise the rewritten code runs, so a leaf saves time and changes nothing else.
"""

from __future__ import annotations

import functools
import re
import time
import types
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, Final

from ember_xcs._enhanced import functions
from ember_xcs._enhanced.flow import active_flow
from ember_xcs._enhanced.leaf_rules import LAZY, MAKERS, LeafRules, rules_of_function
from ember_xcs._enhanced.lifting import plain_call
from ember_xcs._enhanced.pending import DONE, Pending
from ember_xcs._enhanced.pure import PURE_FUNCTIONS, builtin_named
from ember_xcs._enhanced.safety import ATOMS, builds_only, is_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ember_xcs._enhanced.flow import Flow

__all__ = ["leaf_version"]

_ATOMS: Final = ATOMS | {range, slice, re.Pattern, re.Match, type(Ellipsis)}
_CONTAINERS: Final = frozenset({list, dict, set, tuple, frozenset})
_CHANGEABLE: Final = frozenset({list, dict, set})
_KNOWN: Final = PURE_FUNCTIONS | {
    *(builtin_named(name) for name in (*LAZY, *MAKERS, "next")), Counter, defaultdict, deque,
}  # fmt: skip
_MARKED: Final = 1000
_LARGE: Final = 500
_PATIENCE_SECONDS: Final = 0.002
_ABSENT: Final = object()

Seen = dict[int, Any]


class _Refused(Exception):
    """Raised when something that a leaf needs is no data, and nothing known to be pure."""


class _Balance:
    """What the checks of one leaf with large data have cost, and what its runs took."""

    __slots__ = ("checking", "running")

    def __init__(self) -> None:
        self.checking = self.running = 0.0

    @property
    def is_worth_it(self) -> bool:
        """Whether checks are cheap beside what they are for."""
        return self.checking < _PATIENCE_SECONDS + self.running


_balances = functions.ByCode()


# What is read


def _scan(values: Iterable[Any], seen: Seen) -> None:
    """Notes the containers in values.

    Raises:
        _Refused: There is something that is no plain data.
    """
    stack = [values]
    while stack:
        items = stack.pop()
        kinds = set(map(type, items)) - _ATOMS
        if not kinds:
            continue
        if not kinds <= _CONTAINERS:
            raise _Refused
        for item in items:
            if type(item) in _CONTAINERS and id(item) not in seen:
                seen[id(item)] = item
                stack.append(item)
                if type(item) is dict:
                    stack.append(item.values())


class _Names:
    """What the names of leaves stand for, checked.

    Attributes:
        seen: The containers that they read.
        changes: Whether a leaf that they call may change what it is given.
    """

    def __init__(self, seen: Seen) -> None:
        self.seen, self.changes = seen, False
        self._visited: set[int] = set()

    def check(self, rules: LeafRules, found: Callable[[str], Any]) -> None:
        """Checks the names of a leaf that are not its variables; raises `_Refused`."""
        for name in rules.makers:
            if found(name) is not builtin_named(name):
                raise _Refused
        modules = {}
        for name in rules.reads:
            if name not in rules.bound:
                value = found(name)
                if type(value) is types.ModuleType:
                    modules[name] = vars(value)
                elif value is not _ABSENT:
                    self._value(value)
        for name, attribute in rules.attributes:
            if name in modules:
                self._value(modules[name].get(attribute, _ABSENT))

    def _value(self, value: Any) -> None:
        if type(value) is types.FunctionType:
            if not _is_known(value):
                self._function(value)
        elif not _is_callable(value):
            _scan((value,), self.seen)

    def _function(self, function: types.FunctionType) -> None:
        if id(function) in self._visited:
            return
        self._visited.add(id(function))
        rules = _rules_of(function)
        if rules is None:
            raise _Refused
        self.changes = self.changes or rules.changes_any or bool(rules.changed)
        self.of_function(rules, function)

    def of_function(self, rules: LeafRules, function: types.FunctionType) -> None:
        """Checks what a function reads other than its arguments."""
        if function.__defaults__:
            _scan(function.__defaults__, self.seen)
        if function.__kwdefaults__:
            _scan(function.__kwdefaults__.values(), self.seen)
        self.check(rules, functools.partial(_of_function, function))


def _is_known(value: Any) -> bool:
    try:
        return value in _KNOWN
    except TypeError:
        return False


def _is_callable(value: Any) -> bool:
    """Whether a value is pure code, or a class of exceptions that only stores what it is given."""
    if type(value) is types.BuiltinFunctionType:
        return _is_known(value)
    if type(value) is not type:
        return False
    return value in _KNOWN or (
        issubclass(value, BaseException) and builds_only(value) and is_safe(value)
    )


def _of_function(function: Any, name: str) -> Any:
    names = function.__code__.co_freevars
    if name in names:
        try:
            return function.__closure__[names.index(name)].cell_contents
        except ValueError:  # not assigned yet
            return _ABSENT
    return _global(function.__globals__, function.__builtins__, name)


def _global(names: dict[str, Any], builtins: Any, name: str) -> Any:
    value = names.get(name, _ABSENT)
    return builtins.get(name, _ABSENT) if value is _ABSENT else value


_rules = functions.ByCode()


def _rules_of(function: types.FunctionType) -> LeafRules | None:
    code = function.__code__
    known = _rules.of(code)
    if known is None:
        node = functions.definition_of(function)
        known = ((None if node is None else rules_of_function(node)),)
        _rules.note(code, known)
    rules: LeafRules | None = known[0]
    return rules


# What is changed


def _may_change(flow: Flow, outer: Iterable[Any]) -> bool:
    """Whether containers may be changed now: the program's own ones, or nothing is in flight."""
    while flow.unsettled and flow.unsettled[0].state == DONE:
        flow.unsettled.popleft()
    if not flow.unsettled:
        return True
    return not flow.tries and _are_fresh(flow, outer)  # in a ``try``, changes may be undone


def _are_fresh(flow: Flow, values: Iterable[Any]) -> bool:
    since = flow.since
    return all(
        flow.containers.is_fresh(value, since) for value in values if type(value) in _CHANGEABLE
    )


def _prepare_changes(flow: Flow, named: Iterable[Any], seen: Seen, *, deep: bool) -> bool:
    """Whether a leaf may make its changes; what other code can then see is fresh no more."""
    found = list(seen.values()) if deep else list(named)
    if not _may_change(flow, found):
        return False
    if not _are_fresh(flow, seen.values()):
        for value in list(seen.values()):
            flow.containers.escape(value)
    return True


def _mark(flow: Flow, values: Iterable[Any], seen: Seen) -> None:
    """Notes the containers that a leaf has made, as those are that rewritten code makes."""
    stack, count = list(values), 0
    while stack and count < _MARKED:
        value = stack.pop()
        kind = type(value)
        if kind not in _CONTAINERS or id(value) in seen:
            continue
        seen[id(value)] = value
        count += 1
        if kind in _CHANGEABLE:
            flow.containers.add(value, flow.clock)
        if kind in (list, tuple, dict) and len(value) <= _MARKED:
            stack += value.values() if kind is dict else value


# Functions


def leaf_version(function: types.FunctionType, inline: Any) -> Any:
    """Returns what rewritten code is to call for a function: itself where it is a leaf.

    Args:
        function: The function.
        inline: Its rewritten version.
    """
    rules = _rules_of(function)
    if rules is None:
        return inline
    return functools.partial(_call, function, inline, rules)


def _there(value: Any) -> Any:
    """Returns a value that is there already as itself."""
    return value.value if type(value) is Pending and value.state == DONE else value


def _call(function: Any, inline: Any, rules: LeafRules, /, *args: Any, **kwargs: Any) -> Any:
    flow = active_flow()
    if flow is None or flow.eager:
        return plain_call(function, *args, **kwargs)
    args = tuple(map(_there, args))
    seen: Seen = {}
    balance = _balance(function.__code__, (*args, *kwargs.values()))
    if not balance.is_worth_it:
        return inline(*args, **kwargs)
    start = time.perf_counter()
    may_run, keeps = _admitted(flow, function, rules, args, kwargs, seen)
    begun = time.perf_counter()
    balance.checking += begun - start
    if not may_run:
        return inline(*args, **kwargs)
    result = function(*args, **kwargs)
    balance.running += time.perf_counter() - begun
    if keeps:
        _mark(flow, (result,), seen)
    return result


def _balance(code: types.CodeType, values: Iterable[Any]) -> _Balance:
    """The balance to keep of checks: of those of large data alone."""
    made = _Balance()
    if not any(type(v) in _CONTAINERS and len(v) > _LARGE for v in values):
        return made
    known: _Balance | None = _balances.of(code)
    if known is None:
        _balances.note(code, made)
    return known or made


def _admitted(
    flow: Flow,
    function: Any,
    rules: LeafRules,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seen: Seen,
) -> tuple[bool, bool]:
    """Whether a function may run as a leaf now, and whether what it makes is then fresh."""
    names = _Names(seen)
    try:
        _scan(args, seen)
        _scan(kwargs.values(), seen)
        names.of_function(rules, function)
    except _Refused:
        return False, False
    if not (rules.changed or rules.changes_any or names.changes):
        return True, True
    named = [_argument(function, name, args, kwargs) for name in rules.changed]
    deep = rules.changes_any or names.changes or any(value is _ABSENT for value in named)
    may = _prepare_changes(flow, named, seen, deep=deep)
    return may, may and _are_fresh(flow, seen.values())


def _argument(function: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    if name in positional and positional.index(name) < len(args):
        return args[positional.index(name)]
    return kwargs.get(name, _ABSENT)
