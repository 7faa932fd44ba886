"""A value that is not there yet, and the call or expression that it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from ember_xcs._enhanced.special_methods import ON_VALUES
from ember_xcs.errors import XCSError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ember_xcs._enhanced.call_sites import CallSite

__all__ = [
    "ABANDONED",
    "DONE",
    "FAILED",
    "POSTPONED",
    "READY",
    "RUNNING",
    "WAITING",
    "Hole",
    "Pending",
    "Postponed",
]

WAITING: Final = 0  # for operands
READY: Final = 1  # may begin; whoever takes it first does it
RUNNING: Final = 2
DONE: Final = 3  # from here on nothing changes
FAILED: Final = 4
POSTPONED: Final = "postponed"  # the kind of what only the program can do
ABANDONED: Final = 5  # behind a call that failed: never begun, or not waited for

Hole = tuple[Any, Any, Any]
"""A container, the key under which a value is missing, and the ``Pending`` that it comes from."""


class Postponed(Exception):
    """Raised by work that only the program itself can do, when it comes to need it."""


class Pending:
    """A result that is not there yet; only rewritten code ever holds one.

    Attributes:
        order: Its place in the order of the program.
        state: How far it is: one of the constants of this module.
        value: The result, once it is done.
        error: What it raised, if it failed.
        label: What it is called in explanations: ``judge#3``, ``expression``.
        cause: The call whose end it had to wait for, as far as that is known: itself, or of an
            expression the operand that came last.
        work: Computes the result from ``args`` and ``kwargs``.
        args: What it is called with, by position; filled in when the holes are.
        kwargs: What it is called with, by name.
        holes: Where operands are missing, innermost first.
        missing: How many of them are not there yet.
        readers: What waits for it.
        site: Where the program made the call; forgotten once it ended well.
        elements: What it is made of, if it is a tuple that the program wrote down.
        handled: The exception that the program was handling when it made the call.
        is_immutable: Whether its value is known to be a number or a text.
        kind: How it is computed: see ``calls``.
        flight: The coroutine that computes it.
        copied: The result as it was computed from copies, and what these are copies of; None where
            it has none of them.
        originals: What the containers among the arguments are copies of: see ``Snapshot``.
    """

    __slots__ = (
        "args", "cause", "context", "copied", "elements", "error", "flight", "handled", "holes",
        "is_immutable", "kind", "kwargs", "label", "missing", "operator", "order", "originals",
        "readers", "seconds", "settings", "site", "state", "task", "value", "work",
    )  # fmt: skip

    def __init__(
        self,
        order: int,
        kind: str,
        label: str,
        work: Callable[..., Any],
        args: list[Any],
        kwargs: dict[str, Any],
        holes: Sequence[Hole],
    ) -> None:
        self.order, self.kind, self.label, self.work = order, kind, label, work
        self.args, self.kwargs, self.holes = args, kwargs, holes
        self.state = WAITING
        self.missing = 0
        self.value: Any = None
        self.error: BaseException | None = None
        self.readers: list[Pending] = []
        self.site: CallSite | None = None
        self.elements: tuple[Any, ...] | None = None
        self.is_immutable = False
        self.handled: BaseException | None = None
        self.operator: Any = None
        self.context: Any = None
        self.settings: Any = None
        self.task: Any = None
        self.flight: Any = None
        self.originals: Any = None
        self.cause = label
        self.copied: tuple[Any, dict[int, tuple[Any, Any]]] | None = None
        self.seconds = (0.0, 0.0)

    @property
    def is_over(self) -> bool:
        """Whether nothing about it changes any more."""
        return self.state >= DONE

    def __repr__(self) -> str:
        return f"<pending {self.label}>"


def _refusal(name: str) -> Any:
    def refuse(self: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise XCSError(
            f"internal error: {self!r} reached code that takes it for its value ({name}). Pending "
            "values are for rewritten code alone. Run this with EMBER_XCS_ENHANCED=0, and please "
            "report the program."
        )

    refuse.__name__ = name
    return refuse


_REFUSED: Final = ON_VALUES - {"__repr__"} | {
    "__setitem__",
    "__delitem__",
    "__call__",
    "__enter__",
    "__exit__",
    "__await__",
    "__copy__",
    "__deepcopy__",
    "__reduce_ex__",
    "__getattr__",
    "__array__",
}

for _name in _REFUSED:
    setattr(Pending, _name, _refusal(_name))
