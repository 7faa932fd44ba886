"""What random programs are made of: templates of statements and functions.

Beside what templates of expressions have, ``$type`` is a variable to be assigned, ``&type`` one
that is there and is assigned anew, a line ``<block>`` is a block of further statements, and
``<block|...>`` one that may read more; ``loop`` among the names lets it break and continue. A line
``<body>`` is the body of a function, which assigns variables of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from tests.properties.programs.expressions import weighted

__all__ = [
    "ASSIGNMENTS",
    "CALLS",
    "CONTROL",
    "GUARDS",
    "HELPERS",
    "LOCAL_FUNCTIONS",
    "MUTATIONS",
    "RISKS",
    "Function",
]


class Function(NamedTuple):
    """A function that programs define.

    Attributes:
        text: Its definition, or the head of it.
        returns: The type that it returns.
        calls: Templates of its calls.
        reads: The types of its parameters.
    """

    text: str
    returns: str
    calls: tuple[str, ...]
    reads: Mapping[str, str] = MappingProxyType({})


ASSIGNMENTS = weighted(
    r"""
5: $str = <str>

3: $int = <int>

3: $strs = <strs>

2: $ints = <ints>

2: $table = <table>

2: $pair = <pair>

2: $note = <note>

2: $bool = <bool>

$rows = <rows>

&int += <int>

&int -= rate(<str>)

&str += ask(<str>)

&str += <str>[:3]

$strs = $strs = []

$strs = <strs_var>

$ints = <ints_var>

$table = <table_var>

$str, $int = <pair>

$str, $str = <str>, <str>

$str, *$strs = [<str>, *<strs>]

$str, $str = <str_var>, <str_var>

($str, $int), $strs = <pair>, <strs>

&strs += <strs>[:3]

&ints += [<int>]

&table |= <table>

$note = <note_var>

$strs = <strs>
$rows = [[len(x)] for x in <strs_var>]
<rows_var>.append(<ints_var>)

$str: str = <str>

[$str, $int] = [<str>, <int>]
""",
    "\n\n",
)

MUTATIONS = weighted(
    r"""
3: <strs_var>.append(<str>)

2: <ints_var>.append(<int>)

2: <strs_var>.extend(<strs>[:2])

2: <strs_var>.insert(0, <str>)

<strs_var>.sort()

<strs_var>.reverse()

<ints_var>.clear()

2: <strs_var>[:1] = [<str>]

2: <ints_var>[<int>:] = <ints>

2: <ints_var>.sort()

del <strs_var>[:1]

del <strs_var>[1:]

<strs_var>[1:] = <strs>[:3]

2: <table_var>[<str>] = <int>

2: <table_var>['a'] = <int>

<table_var>.update(<table>)

TABLE[<str>] = <str>

<table_var>.setdefault(<str>, <int>)

<table_var>.pop(<str>, None)

<note_var>.score = <int>

<note_var>.text = <str>

<note_var>.tags.append(<str>)

<note_var>.score += <int>

<note_var>.text += <str>

<note_var>.tags = <strs_var>

<note_var>.tags += <strs>

<rows_var>.append(<ints_var>)

<rows_var>[:1] = [<ints_var>]

for r in <rows_var>:
    r.append(<int>)
""",
    "\n\n",
)

CALLS = weighted(r"""
4: log(<str>)
log(<strs>)
log(<note>.text)
2: risky_log(<str>)
ask(<str>)
risky(<str>)
emit(<str>)
emit(<strs>)
emit(<int>, <table>)
SEEN.append(<str>)
deep(<str>, 2)
<str>
Agent(<str>).step(<str>)
""")

CONTROL = weighted(
    r"""
3: if <bool>:
    <block>

2: if <bool>:
    <block>
else:
    <block>

if <bool>:
    <block>
elif <bool>:
    <block>
else:
    <block>

if <str>:
    <block>

if <strs_var>:
    <block>
else:
    <block>

if (w := <str>):
    <block|w:str>

if (m := <int>) > <int>:
    <block|m:int>

4: for x in <strs>:
    <block|x:str,loop>

for n in range(<int> % 4):
    <block|n:int,loop>

for n in <ints>:
    <block|n:int,loop>

for n, x in enumerate(<strs>):
    <block|n:int,x:str,loop>

for x, n in zip(<strs>, <ints>):
    <block|n:int,x:str,loop>

for x, n in <table>.items():
    <block|n:int,x:str,loop>

for x in <strs>:
    <block|x:str,loop>
else:
    <block>

for x in chatter(<strs>):
    <block|x:str,loop>

for $str in <strs>:
    <block|loop>

for <note_var>.text in <strs>:
    <block|loop>

k = 0
while k < 3 and <bool>:
    k += 1
    <block|k:int,loop>

k = 3
while k := k - 1:
    <block|k:int,loop>
else:
    <block>

k = 0
while True:
    k += 1
    if k > 2:
        break
    <block|k:int,loop>

it = chatter(<strs>)
$str = next(it, <str>)
<block>
$strs = list(it)

match <str>:
    case 'a' | 'q':
        <block>
    case w if <bool|w:str>:
        <block|w:str>
    case _:
        <block>

match <strs>:
    case []:
        <block>
    case [w, *ws]:
        <block|w:str,ws:strs>
""",
    "\n\n",
)

GUARDS = weighted(
    r"""
3: try:
    <block>
except ValueError as error:
    <block|str(error):str>

try:
    <block>
except (IndexError, KeyError):
    <block>
else:
    <block>

2: try:
    <block>
finally:
    <block>

try:
    <block>
except Stop as error:
    <block|error.args[0]:str>
finally:
    <block>

try:
    $str = risky(<str>)
except ValueError:
    $str = <str>

try:
    <block>
except Exception as error:
    raise Stop(<str>) from error

try:
    <block>
except ValueError:
    log(<str>)
    raise

with scope(<str>):
    <block>

with scope(<str>) as w:
    <block|w:str>

2: with contextlib.suppress(ValueError, Stop):
    <block>

with managed(<str>) as w, scope(w):
    <block|s:str>
""",
    "\n\n",
)

# What may well raise: written now and then.
RISKS = weighted(r"""
<strs_var>.remove(<str>)
<strs_var>[0] = <str>
<strs_var>.pop()
<ints_var>[0] += 1
<rows_var>[0].append(<int>)
<table_var>['a'] += <int>
del <table_var>['a']
del <strs_var>[0]
[$str, $str] = <strs>
<rows_var>[0][0] = <int>
<int>.x
s()
raise ValueError(<str>)
raise Stop(<str>, <int>)
assert <bool> or <bool>, <str>
raise Stop(<str>) from None
assert <strs>
del <str_var>
undefined(<str>)
""")

LOCAL_FUNCTIONS = [
    Function("def $f(x):\n    <body|x:str>\n    return <str|x:str>", "str", ("$f(<str>)",)),
    Function(
        "def $f(x, n=<int>):\n    <body|x:str,n:int>\n    return <int|x:str,n:int>",
        "int",
        ("$f(<str>)", "$f(<str>, <int>)", "$f(<str>, n=<int>)"),
    ),
    Function(
        "def $f(*xs):\n    <body>\n    return [<str|x:str> for x in xs]",
        "strs",
        ("$f(<str>, <str>)", "$f(*<strs>)", "$f()"),
    ),
    Function("$f = lambda x: <str|x:str>", "str", ("$f(<str>)",)),
    Function(
        "$f = lambda x, n=<int>: <int|x:str,n:int>", "int", ("$f(<str>)", "$f(<str>, n=<int>)")
    ),
    Function(
        "def $f(xs):\n    for x in xs:\n        <body|x:str>\n        yield <str|x:str>",
        "strs",
        (
            "list($f(<strs>))",
            "[*$f(<strs>)]",
            "sorted($f(<strs>))",
            "[x + 'g' for x in $f(<strs>)]",
        ),
    ),
    Function(
        "$f = [lambda x, n=n: <str|x:str,n:int> for n in range(2)]",
        "str",
        ("$f[0](<str>)", "$f[1](<str>)"),
    ),
]

# Functions of the module; their bodies follow.
HELPERS = [
    Function(
        "def $f(s, n):",
        "str",
        ("$f(<str>, <int>)", "$f(n=<int>, s=<str>)"),
        {"s": "str", "n": "int"},
    ),
    Function(
        "def $f(s, n=<int>, *rest, tail='z', **more):",
        "str",
        (
            "$f(<str>)",
            "$f(<str>, <int>, <str>)",
            "$f(<str>, tail=<str>, k=<int>)",
            "$f(*[<str>, <int>])",
        ),
        {"s": "str", "n": "int", "tail": "str"},
    ),
    Function("def $f(xs):", "int", ("$f(<strs>)", "$f(<strs_var>)"), {"xs": "strs"}),
    Function(
        "def $f(xs, out):",
        "strs",
        ("$f(<strs>, <strs_var>)", "$f(<strs>, [])"),
        {"xs": "strs", "out": "strs"},
    ),
    Function(
        "def $f(xs, memory=[]):",
        "strs",
        ("$f(<strs>)", "$f(<strs>, <strs_var>)"),
        {"xs": "strs", "memory": "strs"},
    ),
    Function("@traced\ndef $f(s):", "str", ("$f(<str>)",), {"s": "str"}),
    Function(
        "def $f(t, s):",
        "table",
        ("$f(<table>, <str>)", "$f(<table_var>, s=<str>)"),
        {"t": "table", "s": "str"},
    ),
    Function("def $f(o):", "note", ("$f(<note>)", "$f(<note_var>)"), {"o": "note"}),
    Function("def $f(s):", "bool", ("$f(<str>)",), {"s": "str"}),
    Function("def $f(s):", "pair", ("$f(<str>)",), {"s": "str"}),
    Function("def $f(rows):", "rows", ("$f(<rows>)", "$f(<rows_var>)"), {"rows": "rows"}),
]
