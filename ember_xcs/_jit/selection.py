"""Which strategy compiles a call, and why."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ember_xcs._jit.strategies import Strategy, strategies, strategy_named
from ember_xcs.errors import LoweringError, OptionsError, TracingError

if TYPE_CHECKING:
    from ember_xcs._jit.programs import Program
    from ember_xcs._jit.request import Request
    from ember_xcs._jit.settings import JITSettings
    from ember_xcs._jit.stats import JITStats

__all__ = ["JITExplanation", "Verdict", "select"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one strategy.

    Attributes:
        strategy: Its name.
        chosen: Whether it compiled the call.
        reason: Why, or why not.
    """

    strategy: str
    chosen: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class JITExplanation:
    """Why a call is compiled as it is; printed, it is a table.

    Attributes:
        name: The function or operator.
        verdicts: One for each strategy that was considered, in order.
    """

    name: str
    verdicts: tuple[Verdict, ...]

    @property
    def strategy(self) -> str:
        """The name of the strategy that was chosen."""
        return next(v.strategy for v in self.verdicts if v.chosen)

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.strategy}"]
        for verdict in self.verdicts:
            mark = "*" if verdict.chosen else " "
            reason = verdict.reason.replace("\n", "\n" + " " * 15)
            lines.append(f" {mark} {verdict.strategy:<11} {reason}")
        return "\n".join(lines)

    __repr__ = __str__


_CHOSEN = {
    "trace": "staged with abstract values, as jax.jit does",
    "structural": "its operator calls were recorded, with plumbing alone between them",
    "enhanced": "run at each call, its operator calls overlapping where the data allows",
    "python": "run as plain Python: same results, and no call overlaps another",
}


def select(request: Request, stats: JITStats) -> tuple[Program, JITExplanation]:
    """Returns the program for a call, and why it is this one.

    Raises:
        TracingError: A strategy was asked for by name and the function does not fit it.
        OptionsError: No strategy of that name, or it is not available.
    """
    settings, name = request.target.settings, request.target.name
    if settings.mode == "enhanced":
        return _enhanced(request, stats)
    if settings.mode != "auto":
        program = _compile(strategy_named(settings.mode), request, stats)
        asked = Verdict(settings.mode, chosen=True, reason="asked for by mode=")
        return program, JITExplanation(name, (asked,))
    verdicts: list[Verdict] = []
    for strategy in _candidates(settings):
        reason = strategy.unfit(request)
        if reason is None:
            try:
                program = _compile(strategy, request, stats)
            except (TracingError, LoweringError) as error:
                reason = str(error)
            else:
                why = _CHOSEN.get(strategy.name, "it could compile the call")
                chosen = Verdict(strategy.name, chosen=True, reason=why)
                return program, JITExplanation(name, (*verdicts, chosen))
        verdicts.append(Verdict(strategy.name, chosen=False, reason=reason))
    disabled = ", ".join(settings.disable_strategies)
    raise OptionsError(
        f"no strategy is left for {name!r}: {disabled} disabled, and "
        + "; ".join(f"{v.strategy}: {v.reason}" for v in verdicts)
    )


def _enhanced(request: Request, stats: JITStats) -> tuple[Program, JITExplanation]:
    """The program of a function that is to be enhanced: without its source, plain Python."""
    name, strategy = request.target.name, strategy_named("enhanced")
    reason = strategy.unfit(request)
    if reason is None:
        asked = Verdict("enhanced", chosen=True, reason="asked for by mode=")
        return _compile(strategy, request, stats), JITExplanation(name, (asked,))
    refused = Verdict("enhanced", chosen=False, reason=reason)
    plain = Verdict("python", chosen=True, reason=_CHOSEN["python"])
    program = _compile(strategy_named("python"), request, stats)
    return program, JITExplanation(name, (refused, plain))


def _candidates(settings: JITSettings) -> list[Strategy]:
    for name in (*settings.disable_strategies, *filter(None, [settings.prefer])):
        strategy_named(name)
    found = [s for s in strategies() if s.name not in settings.disable_strategies]
    return sorted(found, key=lambda s: s.name != settings.prefer)


def _compile(strategy: Strategy, request: Request, stats: JITStats) -> Program:
    start = time.perf_counter()
    failed = True
    try:
        program = strategy.compile(request)
        failed = False
    finally:
        stats.tried(strategy.name, time.perf_counter() - start, failed=failed)
    return program
