"""Small programs about one rule of Python each, which a strategy that overlaps calls may break."""

from __future__ import annotations

import textwrap

from tests.properties.programs.failure_cases import FAILURES
from tests.properties.programs.prelude import PRELUDE

__all__ = ["CASES"]

# Bodies of ``program(s, n, xs, t)``; ``risky('a')`` raises, ``risky('b')`` does not.
VALUES = r"""
### arguments are those at the call
    ys = ["a"]
    n = rate(ys)
    ys.append("b")
    return [n, rate(ys), ys]
### nested arguments are those at the call
    d = {"k": [ask(s)], "m": {"n": [1]}}
    n = rate(d)
    d["k"].append("b")
    d["m"]["n"][0] = 7
    return [n, rate(d), d]
### a result that is named twice is one object
    x = facts("b")
    return [x, x, {"x": x}]
### a result is changed in place under both names
    x = facts("b")
    y = x
    y.append(ask(s))
    return [x, y, len(x)]
### augmented assignment changes a list in place
    x = facts("b")
    y = x
    x += ["z", ask(s)]
    return [x, y]
### augmented assignment changes a fresh list in place
    x = [ask(s)]
    y = x
    x += [ask("b")]
    x *= 2
    return [x, y]
### augmented assignment makes a new text and a new tuple
    x = ask(s)
    y = x
    x += ask("b")
    p = pair_of(s)
    q = p
    p += (1,)
    return [x, y, p, q]
### augmented assignment changes a table in place
    d = plan(s)["table"]
    e = d
    d |= {"z": rate(s)}
    return [d, e]
### parts of a result are the same parts each time
    d = plan(s)
    same = d["tags"] is d["tags"]
    d["tags"].append("x")
    d["n"] = ask(s)
    return [d, same]
### attributes of results are assigned
    o = note_of(s)
    p = o
    o.score += rate(s)
    o.tags.append(ask(o.text))
    o.text = ask(p.text)
    return [o, p]
### places are evaluated in order
    ys = [1, 2, 3]
    ys[log("i") % 3] += log("v")
    ys[log("j") % 3] = ys[log("k") % 3] + log("l")
    return ys
### effects are in order with plain code
    log("1")
    emit("2")
    log(ask(s))
    emit(ask(s))
    log("5")
    return [log(x) for x in xs]
### effects behind a failing effect do not happen
    log("1")
    risky_log("a")
    log("never")
    return 1
### effects number themselves in order
    return [log("a"), log("b"), [log("c"), log("d")], {log("k"): log("v")}]
### a branch makes the calls of one side
    return [ask("b") if coin(s) else draft("c"), draft("d") if not coin(s) else ask("e")]
### a comparison in a chain stops early
    return [rate("a") < rate("b") < rate("c"), 9 < rate("d") < rate("e"), -1 < rate("f") == 1]
### and and or give operands
    return [ask(s) and facts("b"), "" or ask("c"), coin(s) and ask("d"), facts("q") or ask("e")]
### a loop waits for its condition
    k = 0
    while rate(f"{s}{k}") < 8 and k < 9:
        k += 1
    else:
        k += 100
    return k
### a walrus is seen after the expression
    if (x := ask(s)) and (y := rate(x)) > -1:
        return [x, y, [z for a in xs if (z := ask(a))], z]
### results are spread over arguments
    def f(*args, **named):
        return [args, sorted(named.items())]

    return [f(*facts("b"), *pair_of(s)), f(**plan(s)["table"]), draft(*pair_of(s))]
### results are unpacked
    a, (b, c), *d = ask(s), pair_of(s), *facts("b"), 1
    [e, *f] = [ask("c"), ask("d")]
    return [a, b, c, d, e, f]
### texts are formatted
    x, k = ask(s), rate(s)
    return [f"{x!r:>9}|{k:03d}|{k:>{k}}|{x=}", "%s %d" % (x, k), "{0} {b}".format(x, b=k),
            "{a}{k}".format(**{"a": x, "k": k}), "{x}".format_map({"x": x}), format(k, "+d")]
### keys wait
    d = {ask("b"): 1, ask("b"): 2, ask("c"): ask("d")}
    d[ask("e")] = ask("f")
    return [d, sorted({ask("b"), ask("b")}), ask("b") in d, {x: ask(x) for x in facts("b")}]
### identity and types are those of values
    x = ask(s)
    return [x is None, x is x, isinstance(x, str), type(x) is str, callable(x), x == x]
### sorting is stable and by key
    ys = [ask(x) for x in ["a", "b", "c", "d"]]
    zs = sorted(ys, key=len)
    ys.sort(key=lambda y: (rate(y), y), reverse=True)
    return [ys, zs, max(ys, key=rate), min(zs, default=""), sorted(zs, key=lambda z: z[-1:])]
### lists of pending values are lists
    ys = [ask("a"), ask("b")]
    ys.insert(1, ask("c"))
    ys[0], ys[-1] = ys[-1], ys[0]
    ys.remove(ask("a"))
    ys.reverse()
    del ys[:0]
    return [ys, ys.index(ask("b")), ys.count(ask("b")), ask("b") in ys, ys == [ask("b")], ys * 2,
            ys + facts("b"), ys[rate(s) % 2 :], len(ys), bool(ys), not ys, str(ys), json.dumps(ys)]
### conversions of results
    x = facts("b")
    return [tuple(x), sorted(set(x)), list(enumerate(x)), list(reversed(x)), list(zip(x, xs)),
            list(range(rate(s))), dict([pair_of("a"), pair_of("b")]), sum([[1], [2]], []),
            sum([rate("a"), rate("b")]), round(rate(s) / 3, 1), divmod(rate(s), 3), pow(rate(s), 2),
            float(rate(s)), bool(rate(s)), str(rate(s)), [*x], list(zip(*[x, x])), -rate(s)]
### attributes by name
    o = note_of(s)
    setattr(o, "text", ask("b"))
    return [getattr(o, "text"), hasattr(o, "score"), getattr(o, "none", ask("c")), vars(o), o]
### generators are lazy
    g = (ask(x) for x in xs)
    xs.append("z")
    h = (ask(x) for x in ["never"])
    first = next(g)
    return [first, list(g), h is None]
### consumers that stop early stop the calls
    return [any(coin(x) for x in "abcdef"), all(coin(x) for x in "abcdef"),
            next(ask(x) for x in "abc"), next((x for x in "abc" if coin(x)), None),
            [x for x, _ in zip("ab", (ask(y) for y in "abcdef"))]]
### map and filter are lazy
    m = map(ask, xs)
    xs.append("z")
    return [next(m), [*filter(coin, xs)], list(m), list(itertools.islice(map(ask, "abcdef"), 2))]
### a generator is closed when it is dropped
    def g():
        try:
            for x in "abc":
                yield ask(x)
        finally:
            emit("closed")

    for x in g():
        emit(x)
        break
    emit("after")
    return x
### a generator takes what is sent
    def g():
        got = yield ask("a")
        while got:
            got = yield ask(got)

    it = g()
    first = next(it)
    return [first, it.send(first), it.send("q")]
### late binding of closures
    fs = [lambda: ask(str(k)) for k in range(3)]
    gs = [lambda k=k: ask(str(k)) for k in range(3)]
    k = 7
    return [[f() for f in fs], [g() for g in gs], k]
### closures count
    count = 0

    def add(x):
        nonlocal count
        count += rate(x)
        return count

    return [add("a"), add("b"), [add(x) for x in xs], count]
### a changed default is kept
    def keep(x, seen=[]):
        seen.append(ask(x))
        return seen

    return [keep("a"), keep("b"), keep("c", [])]
### operators are values
    ops = {"a": ask, "r": rate}
    f = functools.partial(draft, style=2)
    return [ops["a"](s), [op(s) for op in (ask, rate, facts)], f(s), list(map(ops["r"], xs))]
### recursion
    def tree(x, depth):
        if depth == 0:
            return ask(x)
        return [tree(f"{x}{k}", depth - 1) for k in range(2)]

    return [tree(s, 2), deep(s, 2)]
### classes within functions
    class Pair(tuple):
        label = ask(s)

        def __new__(cls, a, b):
            return super().__new__(cls, (ask(a), b))

        def both(self):
            return f"{self[0]}{self[1]}{self.label}{__class__.__name__}"

    return [Pair("a", "b").both(), Pair.label]
### local names are those of the program
    x = ask(s)
    return [sorted(locals()), locals()["x"], "x" in vars()]
### matching waits for its subject
    match plan(s):
        case {"name": str(name), "n": k} if k >= 0:
            return [name, k]
        case _:
            return ask("never")
### deleted names are gone
    x = ask(s)
    del x
    return x
### changing a table in a loop over it is an error
    d = {"a": 1}
    for k in d:
        d[ask(k)] = 1
    return d
### changing a list in a loop over it is seen
    ys = ["a"]
    for y in ys:
        if len(ys) < 4:
            ys.append(ask(y))
    return ys
### one object at many places
    row = [rate(s)]
    rows = [row, row, [row]]
    row.append(rate("b"))
    rows[2][0].append(rate("c"))
    return [rows, row]
### plain code sees values at any depth
    d = {"a": [ask(s), (ask("b"), {"c": ask("d")})]}
    emit(d)
    o = Note(ask(s), rate(s), [ask("b")])
    emit(o)
    emit(vars(o), [o.tags], *o.tags)
    return [d, o]
### an object of plain code holds values
    agent = Agent(ask(s))
    agent.extra = [ask("b")]
    emit(agent.name, agent.extra, vars(agent))
    return [agent.step("c"), agent.history, agent.extra]
### properties of dataclasses see values
    @dataclass
    class Attempt:
        code: str
        notes: list

        @property
        def score(self):
            return sum(note.score for note in self.notes)

    def attempt(code):
        notes = []
        for x in xs:
            notes.append(note_of(x + code))
        return Attempt(code, notes)

    attempts = [attempt(ask(k)) for k in "abc"]
    best = max(attempts, key=lambda a: a.score)
    while best.score < 30 and len(attempts) < 6:
        attempts.append(attempt(ask(f"{best.code}{best.score}")))
        best = max(best, attempts[-1], key=lambda a: a.score)
    return [best.code, best.score, best.notes, len(attempts)]
### a dataclass checks what it is given
    @dataclass
    class Checked:
        code: str
        label: str = ""

        def __post_init__(self):
            emit(self.code)
            self.label = self.code.upper()

    made = [Checked(ask(x)) for x in xs]
    return [[m.label for m in made], made[0] == Checked(ask(xs[0])), str(made[0])[-9:]]
### an assertion says what it was told
    assert rate(s) > 10, f"too low: {rate(s)}"
### an exception holds values
    raise Stop(ask(s), [ask("b")])
### a line of a long call is told
    x = draft(
        ask(s),
        style=rate(
            risky("a"),
        ),
    )
    return x
### a line of a helper is told
    def helper(x):
        y = ask(x)

        return risky(
            "a"
        ) + y

    z = helper(s)
    return z
### a line in a comprehension is told
    return [
        ask(y)
        for y in [
            risky(x)
            for x in ["b", "a"]
        ]
    ]
### a line in a lifted expression is told
    x = ask(s)
    y = (
        x
        + rate(s)
    )
    z = ask(x)
    return [y, z]
### values that are compared in depth
    return [[ask(s)] == [ask(s)], (ask(s), 1) < (ask(s), 2), {"a": ask(s)} == {"a": ask(s)},
            [ask("b")] != [ask(s)], {ask(s)} <= {ask(s), "b"}, [ask(s), 1] is None]
### lists of the module are shared
    SEEN.append(ask(s))
    ys = SEEN
    ys += [ask("b")]
    TABLE[ask("c")] = SEEN
    return [ys, TABLE]
### arguments are changed for the caller
    xs.append(ask(s))
    xs[0] = ask("b")
    t[ask("c")] = xs
    del t["a"]
    return xs
### an effect follows a failure that was caught
    for x in ["a", "b"]:
        try:
            risky(x)
        except ValueError:
            log("caught")
    log("after")
    return log("last")
### changing a table in a loop over its view is an error
    for key, value in t.items():
        t[ask(key)] = value
    return t
### the source of a generator is read where it stands
    g = (ask(x) for x in n)
    log("never")
    return list(g)
### names of the module are unpacked into
    global TOTAL
    [TOTAL, k], *rest = pair_of(s), 1
    return [TOTAL, k, rest]
### text of many lines
    parts = [f"{k}. {ask(x)}" for k, x in enumerate(xs)]
    whole = "\n".join(parts)
    return [whole.split("\n"), whole.splitlines()[-1].partition(".")[2].strip(), whole.count("\n")]
### numeric operators of arrays give arrays
    x = jnp.arange(3) + rate(s)
    y = doubled(doubled(x))
    if y.sum() > 3:
        y = y + doubled(x[0])
    return [y, doubled(y), int(y[0]), rate(str(y.tolist()))]
### numeric operators of numbers give what they give alone
    x = doubled(rate(s))
    return [x, doubled(2.5), f"{doubled(rate('b'))}", list(range(doubled(2)))]
### json goes round
    d = json.loads(json.dumps({"a": ask(s), "b": [rate(s)], "c": plan(s)}))
    return [d["a"], d["b"][0], d["c"]["tags"], len(d)]
"""


def _program(body: str) -> str:
    return (
        f"{PRELUDE}\n\ndef program(s, n, xs, t):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    )


CASES = {
    name: _program(body)
    for name, _, body in (case.partition("\n") for case in (VALUES + FAILURES).split("### ")[1:])
}
