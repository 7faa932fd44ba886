"""Writes random programs: Python source whose ``program`` is run as it is, and by a strategy."""

from __future__ import annotations

import dataclasses
import random
import re
import textwrap
import warnings
from collections.abc import Iterator

from tests.properties.programs import expressions, statements
from tests.properties.programs.awaiting import as_coroutine_function
from tests.properties.programs.prelude import PRELUDE
from tests.properties.programs.world import ASYNC

__all__ = ["write_program"]

HOLE = re.compile(r"<(\w+?)(_var|_name)?(?:\|([^>]*))?>|([$&])(\w+)")
MAX_DEPTH, MAX_NESTING = 3, 3


@dataclasses.dataclass
class Scope:
    """What can be read, assigned and called at a place in the program.

    Attributes:
        names: The variables by type.
        fixed: Those of them that cannot be assigned.
        calls: Templates of calls by what they return.
        in_loop: Whether ``break`` is allowed.
        returns: The type that the function returns; None where it must not return early.
        nesting: In how many blocks this is.
    """

    names: dict[str, list[str]]
    fixed: set[str]
    calls: dict[str, list[str]]
    in_loop: bool = False
    returns: str | None = None
    nesting: int = 0

    def inner(self, more: dict[str, str], **changes: object) -> Scope:
        """Returns the scope of a block or expression that may read ``more``."""
        names = _copied(self.names)
        for name, kind in more.items():
            names.setdefault(kind, []).append(name)
        calls = _copied(self.calls)
        return dataclasses.replace(
            self, names=names, calls=calls, fixed=self.fixed | set(more), **changes
        )


class Writer:
    """Writes one program, by the choices of a random generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def choose(self, options: list[str]) -> str:
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def new_name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # ------------------------------------------------------------------ expressions

    def expression(self, kind: str, scope: Scope, depth: int) -> str:
        names = scope.names.get(kind, [])
        if depth <= 0 or self.chance(0.25):
            if names and self.chance(0.85):
                return self.choose(names)
            return self.choose(expressions.LITERALS[kind])
        templates = expressions.EXPRESSIONS[kind]
        if kind in expressions.RISKS and self.chance(0.01):
            templates = expressions.RISKS[kind]
        calls = scope.calls.get(kind, [])
        template = self.choose(calls) if calls and self.chance(0.25) else self.choose(templates)
        return self.filled(template, scope, depth - 1)

    def variable(self, kind: str, scope: Scope) -> str:
        names = scope.names.get(kind, [])
        return self.choose(names) if names else expressions.LITERALS[kind][-1]

    def filled(self, template: str, scope: Scope, depth: int) -> str:
        """The template with its holes filled; what ``$`` assigns can be read from then on."""
        assigned: dict[str, str] = {}

        def fill(hole: re.Match[str]) -> str:
            kind, special, more, sign, target = hole.groups()
            if target:
                name = self.target(target, scope, old=sign == "&")
                assigned[name] = target
                return name
            if special == "_var":
                return self.variable(kind, scope)
            if special == "_name":
                return self.filled(self.choose(expressions.NAMES[kind]), scope, 0)
            inside = scope.inner(_typed(more)) if more else scope
            return self.expression(kind, inside, depth)

        text = HOLE.sub(fill, template)
        for name, kind in assigned.items():
            if name not in scope.names.setdefault(kind, []):
                scope.names[kind].append(name)
        return text

    def target(self, kind: str, scope: Scope, *, old: bool) -> str:
        names = self.assignable(kind, scope)
        if names and (old or self.chance(0.5)):
            return self.choose(names)
        return self.new_name(expressions.PREFIXES[kind])

    def assignable(self, kind: str, scope: Scope) -> list[str]:
        return [name for name in scope.names.get(kind, []) if name not in scope.fixed]

    # ------------------------------------------------------------------- statements

    def block(self, scope: Scope, most: int, least: int = 1) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(least, most)):
            lines += self.statement(scope)
        if scope.nesting and self.chance(0.12):
            lines += self.exit(scope)
        return lines

    def statement(self, scope: Scope) -> list[str]:
        choice = self.random.random()
        if scope.nesting < MAX_NESTING and choice < 0.28:
            tables = (statements.CONTROL, statements.CONTROL, statements.GUARDS)
            return self.compound(self.random.choice(tables), scope)
        if scope.nesting < MAX_NESTING - 1 and choice < 0.34:
            return self.local_function(scope)
        if choice < 0.65:
            return self.simple(self.choose(statements.ASSIGNMENTS), scope)
        if choice < 0.83:
            return self.simple(self.choose(statements.MUTATIONS), scope)
        if choice < 0.98:
            return self.simple(self.choose(statements.CALLS), scope)
        return self.simple(self.choose(statements.RISKS), scope)

    def simple(self, template: str, scope: Scope) -> list[str]:
        changed = re.match(r"&(\w+)", template)
        if changed and not self.assignable(changed.group(1), scope):
            template = f"${changed.group(1)} = <{changed.group(1)}>"
        return self.lines(template, scope)

    def compound(self, table: list[str], scope: Scope) -> list[str]:
        return self.lines(self.choose(table), scope)

    def exit(self, scope: Scope) -> list[str]:
        exits = ["pass"] if scope.in_loop or scope.returns else list(statements.RISKS)
        if scope.in_loop:
            exits += ["break", "continue"]
        if scope.returns:
            exits += [f"return <{scope.returns}>"]
        return self.lines(self.choose(exits), scope)

    def lines(self, template: str, scope: Scope) -> list[str]:
        """A statement's lines; what its blocks assign is mostly not read after them."""
        lines: list[str] = []
        for line in template.split("\n"):
            indent = line[: len(line) - len(line.lstrip())]
            if match := re.match(r"<(block|body)(?:\|(.*))?>$", line.strip()):
                inside = self.inside(match.group(1), match.group(2) or "", scope)
                body = self.block(inside, 3 - min(scope.nesting, 2))
                if self.chance(0.02):
                    scope.names = inside.names
                lines += [indent + inner for inner in body]
            else:
                lines.append(indent + self.filled(line.strip(), scope, MAX_DEPTH - 1))
        return lines

    def inside(self, kind: str, more: str, scope: Scope) -> Scope:
        named = _typed(more)
        in_loop = scope.in_loop or "loop" in more.split(",")
        if kind == "block":
            return scope.inner(named, in_loop=in_loop, nesting=scope.nesting + 1)
        return self.function_scope(scope.inner(named), None, scope.nesting + 1)

    def function_scope(self, scope: Scope, returns: str | None, nesting: int) -> Scope:
        """The scope in a nested function: it reads what is around it, and assigns its own."""
        fixed = {name for names in scope.names.values() for name in names}
        return dataclasses.replace(
            scope, fixed=fixed, in_loop=False, returns=returns, nesting=nesting
        )

    def local_function(self, scope: Scope) -> list[str]:
        template, returns, calls, _ = self.random.choice(statements.LOCAL_FUNCTIONS)
        name = self.new_name("f")
        shared = [
            own
            for kind in ("int", "str", "strs")
            for own in scope.names.get(kind, [])
            if own not in scope.fixed
            and own.isidentifier()
            and own not in ("TOTAL", "x", "xs", "n")
        ]
        if "<body" in template and template.startswith("def") and shared and self.chance(0.5):
            head, _, rest = template.partition("\n")
            template = f"{head}\n    nonlocal {self.choose(shared)}\n{rest}"
        nonlocal_name = re.search(r"nonlocal (\w+)", template)
        lines = self.closure_lines(template.replace("$f", name), scope, nonlocal_name)
        scope.calls.setdefault(returns, []).extend(c.replace("$f", name) for c in calls)
        return lines

    def closure_lines(self, text: str, scope: Scope, shared: re.Match[str] | None) -> list[str]:
        """The lines of a nested function, which counts in what it shares with the outer one."""
        lines = self.lines(text, scope)
        if shared:
            name = shared.group(1)
            kind = next(kind for kind, names in scope.names.items() if name in names)
            change = {"int": "<int>", "str": "ask(<str>)", "strs": "[<str>]"}[kind]
            at = next(k for k, line in enumerate(lines) if "nonlocal" in line) + 1
            lines.insert(at, "    " + self.filled(f"{name} += {change}", scope, 1))
        return lines

    # -------------------------------------------------------------------- functions

    def helper(self, calls: dict[str, list[str]]) -> list[str]:
        head, returns, forms, reads = self.random.choice(statements.HELPERS)
        name = self.new_name("h")
        scope = Scope({"strs": ["SEEN"]}, {"SEEN"}, _copied(calls), returns=returns)
        for own, kind in reads.items():
            scope.names.setdefault(kind, []).append(own)
        signature = self.filled(head.replace("$f", name), Scope({}, set(), {}), 0)
        body = self.function_body(scope, 3)
        calls.setdefault(returns, []).extend(form.replace("$f", name) for form in forms)
        return [*signature.split("\n"), *_indented(body), "", ""]

    def function_body(self, scope: Scope, most: int) -> list[str]:
        lines = []
        if self.chance(0.3):
            lines.append("global TOTAL")
            scope.names.setdefault("int", []).append("TOTAL")
        lines += self.block(scope, most)
        return [*lines, f"return {self.expression(scope.returns or 'str', scope, 2)}"]

    def program(self) -> str:
        calls: dict[str, list[str]] = {}
        lines = [PRELUDE, ""]
        for _ in range(self.random.randint(0, 3)):
            lines += self.helper(calls)
        names = {"str": ["s"], "int": ["n"], "strs": ["xs", "SEEN"], "table": ["t"]}
        lines += self.entry(Scope(names, {"SEEN"}, calls))
        return "\n".join(lines).rstrip() + "\n"

    def entry(self, scope: Scope) -> list[str]:
        """The function that is run: of the module, a closure, a method or a coroutine function."""
        kinds = [self.closure, self.method, self.coroutine_function]
        return self.random.choices([self.function, *kinds], [5, 2, 1, 2])[0](scope)

    def function(self, scope: Scope) -> list[str]:
        body = [*self.block(scope, 9, 4), self.result(scope)]
        return ["def program(s, n, xs, t):", *_indented(body)]

    def coroutine_function(self, scope: Scope) -> list[str]:
        source = "\n".join(self.function(scope))
        try:
            return [as_coroutine_function(source, ASYNC)]
        except SyntaxError:  # the whole program is written anew then
            return [source]

    def closure(self, scope: Scope) -> list[str]:
        scope.names["int"].append("count")
        scope.names["strs"].append("kept")
        scope.fixed.add("kept")
        body = ["nonlocal count", *self.block(scope, 8, 3), self.result(scope)]
        inner = ["def program(s, n, xs, t):", *_indented(body), ""]
        start = ["count, kept = 0, []", ""]
        end = ["def state():", "    return count, kept", "", "return program, state"]
        made = ["def make():", *_indented([*start, *inner, *end]), "", ""]
        return [*made, "program, state = make()"]

    def method(self, scope: Scope) -> list[str]:
        scope.names["int"].append("self.count")
        scope.names["strs"].append("self.kept")
        body = [*self.block(scope, 8, 3), self.result(scope)]
        start = ["class Worker:", "    count = 0", "", "    def __init__(self):"]
        method = ["    def program(self, s, n, xs, t):", *_indented(list(_indented(body)))]
        state = ["def state():", "    return vars(worker)"]
        made = ["worker = Worker()", "program = worker.program", "", "", *state]
        return [*start, "        self.kept = []", "", *method, "", "", *made]

    def result(self, scope: Scope) -> str:
        kinds = self.random.sample(sorted(expressions.LITERALS), 4)
        names = [name for names in scope.names.values() for name in names]
        kept = self.random.sample(names, min(len(names), 5))
        return f"return [{', '.join([*(self.expression(k, scope, 2) for k in kinds), *kept])}]"


def _copied(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    return {kind: list(found) for kind, found in lists.items()}


def _typed(more: str) -> dict[str, str]:
    """The names and types of ``x:str,n:int``."""
    pairs = ((part.rsplit(":", 1)) for part in more.split(",") if ":" in part)
    return dict(pairs)


def _indented(lines: list[str]) -> Iterator[str]:
    return (textwrap.indent(line, "    ") for line in lines)


def write_program(seed: int) -> str:
    """Returns the source of a random module: ``program(s, n, xs, t)`` and what it uses.

    Few of the programs break a rule of Python's grammar; then another is written.
    """
    writer = Writer(seed)
    while True:
        source = writer.program()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            try:
                compile(source, "program", "exec")
            except SyntaxError:
                continue
        return source
