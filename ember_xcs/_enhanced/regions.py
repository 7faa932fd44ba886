"""The bodies of ``try`` and ``with``: where failures are caught, and what they find.

A call fails when the program has gone on. Before a handler runs, the variables that the body has
assigned, and the containers that it has made, are therefore given what they had when the call was
made. Nothing else has to be undone: whatever other code can see, and whatever was made outside the
body, is changed only after all earlier calls have ended well.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from ember_xcs._enhanced.call_sites import traceback_of, without_internals
from ember_xcs._enhanced.flow import Failure, Flow, Surfaced, active_flow
from ember_xcs._enhanced.pending import DONE

__all__ = ["Region", "caught", "enter", "failed", "leave", "note", "unbound"]

_UNBOUND: Final = object()


class Region:
    """The body of one ``try`` or ``with``, once through it.

    Attributes:
        depth: How many such bodies are around it.
        names: The variables that it assigns.
        history: When each was given which value.
        error: The failure that is to be raised after it.
        bound: What those variables are to be that have a value then.
        unbound: Those that have none.
    """

    __slots__ = ("bound", "depth", "error", "history", "names", "unbound")

    def __init__(self, depth: int, names: tuple[str, ...], variables: dict[str, Any]) -> None:
        self.depth, self.names = depth, names
        self.history = [(-1, name, variables.get(name, _UNBOUND)) for name in names]
        self.error: BaseException | None = None
        self.bound: dict[str, Any] = {}
        self.unbound: frozenset[str] = frozenset()

    def restore(self, order: int) -> None:
        """Says what the variables were when a call was made."""
        found = {name: value for stamp, name, value in self.history if stamp < order}
        assigned = {name for stamp, name, _ in self.history if stamp >= 0}
        last = {name: value for _, name, value in self.history}
        now = {
            name: value
            for name, value in found.items()
            if name in assigned and last[name] is not value
        }
        self.bound = {name: value for name, value in now.items() if value is not _UNBOUND}
        self.unbound = frozenset(name for name, value in now.items() if value is _UNBOUND)


def enter(names: tuple[str, ...] = (), variables: dict[str, Any] | None = None) -> Region | None:
    """Notes that the program enters a body, and returns that.

    Args:
        names: The variables that it assigns.
        variables: All variables, of which some of these may have a value.
    """
    flow = active_flow()
    if flow is None or flow.eager:
        return None
    flow.settle()
    flow.clock += 1
    flow.tries.append(flow.clock)
    return Region(len(flow.tries) - 1, names, variables or {})


def unbound() -> object:
    """Returns what a variable is noted to be that was deleted."""
    return _UNBOUND


def note(region: Region | None, name: str, value: Any) -> None:
    """Notes that a variable was assigned in a body."""
    if region is not None:
        flow = active_flow()
        if flow is not None:
            region.history.append((flow.clock, name, value))


def leave(region: Region | None) -> None:
    """Waits for the calls of a body that ends well."""
    flow = active_flow()
    if region is None or flow is None:
        return
    flow.settle()
    flow.containers.keep()
    del flow.tries[region.depth :]


def failed(region: Region | None) -> Region | None:
    """Waits for the calls made before a body failed, with the exception that is being handled.

    Returns:
        The region if a call failed before that was raised, which is then what the body fails
        with; None if the exception itself is.
    """
    flow, error = active_flow(), sys.exc_info()[1]
    if region is None or flow is None or error is None:
        return None
    del flow.tries[region.depth :]
    surfaced = flow.surfaced
    if surfaced is None or surfaced.error is not error:
        is_end = flow.stopped or isinstance(error, KeyboardInterrupt)
        surfaced = _interrupted(flow, error) if is_end else flow.first_failure()
    flow.surfaced = None
    if surfaced is None:
        error.__traceback__ = without_internals(error.__traceback__)
        return None
    failure: Failure = surfaced.node.value
    caller = sys._getframe(1)  # noqa: SLF001  (documented)
    made = traceback_of(surfaced.node.site or (), without_internals(failure.traceback), caller)
    failure.error.__traceback__ = made
    failure.error.__context__ = failure.context
    region.error = failure.error
    region.restore(surfaced.node.order)
    flow.containers.undo(surfaced.node.order)
    flow.shown[id(failure.error)] = failure._replace(traceback=made)
    return region


def _interrupted(flow: Flow, error: BaseException) -> Surfaced | None:
    """Has Ctrl-C, or the end of the run, come at the first call that has not ended.

    Nothing is waited for any more, so that the program can clean up at once.
    """
    node = next((node for node in flow.unsettled if node.state != DONE), None)
    if node is None:
        return None
    flow.abandon()
    known = node.value
    if not (isinstance(known, Failure) and known.error is error):
        node.value = Failure(error, None, error.__context__)
    return Surfaced(error, node)


def caught() -> None:
    """Has an exception that is being handled show where its call was made, and no more."""
    flow = active_flow()
    error = sys.exc_info()[1]
    if flow is not None and error is not None:
        known = flow.shown.pop(id(error), None)
        if known is not None:
            error.__traceback__, error.__context__ = known.traceback, known.context
