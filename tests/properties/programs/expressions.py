"""What random programs are made of: templates of expressions, by type.

``<type>`` in a template is an expression of that type, ``<type|x:str,n:int>`` one that may also
read ``x`` and ``n``. ``<type_var>`` is a variable that is there to be changed in place, and
``<type_name>`` an expression without quotes, for f-strings. A template stands on a line; ``3: ...``
is written three times as often as others.

The types: ``str``, ``int``, ``bool``, ``strs``, ``ints`` (lists), ``rows`` (a list of lists of
numbers, for aliasing), ``table`` (a dict of numbers), ``pair`` (a tuple of a text and a number)
and ``note`` (an object with ``text``, ``score`` and ``tags``).
"""

from __future__ import annotations

import re

__all__ = ["EXPRESSIONS", "LITERALS", "NAMES", "PREFIXES", "RISKS", "weighted"]


def weighted(text: str, separator: str = "\n") -> list[str]:
    """Returns the templates of a text, each as often as its weight says."""
    found = []
    for part in text.strip("\n").split(separator):
        weight, template = re.fullmatch(r"(?:(\d+): )?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        found += [template] * int(weight or 1)
    return found


def _by_type(**texts: str) -> dict[str, list[str]]:
    return {kind: weighted(text) for kind, text in texts.items()}


# How variables of each type are called.
PREFIXES = {
    "str": "s",
    "int": "n",
    "bool": "b",
    "strs": "xs",
    "ints": "ns",
    "rows": "rows",
    "table": "t",
    "pair": "p",
    "note": "o",
}

LITERALS = _by_type(
    str=r"""
'a'
'bc'
''
'x y'
'7'
""",
    int=r"""
0
1
2
3
7
-1
""",
    bool=r"""
True
False
""",
    strs=r"""
[]
['a', 'b']
['q']
['c', 'a', 'b']
""",
    ints=r"""
[]
[1, 2]
[3]
[2, 0, 1]
list(range(3))
""",
    rows=r"""
[]
[[1], [2]]
([[]] * 2)
""",
    table=r"""
{}
{'a': 1}
{'b': 2, 'a': 0}
""",
    pair=r"""
('a', 1)
('', 0)
""",
    note=r"""
Note('n', 1, [])
Note(text='m', score=2, tags=['t'])
""",
)

EXPRESSIONS = _by_type(
    str=r"""
5: ask(<str>)
draft(<str>, <int>)
draft(<str>, style=<int>)
draft(text=<str>)
draft(*[<str>, <int>])
draft(**{'text': <str>, 'style': <int>})
2: risky(<str>)
2: f"{<str_name>:.9} {<int_name>:>3}"
2: f"{<str_name>!r:.6}|{<strs_name>}"[:9]
f"{<int_name>=}"
f"{<str_name>:>{<int_name> % 5}.9}"
f"{<int_name> + 1}{<bool_name>}"
(<str> + <str>)[-9:]
', '.join(<strs>)[:9]
''.join(sorted(<strs>))[-9:]
'-'.join(<str|x:str> for x in <strs>)[:9]
'\n'.join([<str|n:int> for n in <ints>])[:9]
<str>.upper()
<str>.strip().title()
<str>.replace('a', <str>)[:9]
<str>.join(<strs>)[:9]
<str>[:2]
<str>[<int> % 4 :]
<str>[::-1]
<str>[1:2]
(<strs> or [<str>])[0]
str(<int>)
str(<strs>)[:9]
repr(<table>)[:9]
str(<rows>)[:9]
str(<note>.tags)[:9]
json.dumps(<table>)[:9]
json.dumps({'k': <int>, 'v': <strs>})[:9]
<pair>[0]
<note>.text
<note>.text.lower()
plan(<str>)['name']
(<str> if <bool> else <str>)
(<str> or <str>)
(<bool> and <str> or <str>)
max(<strs>, key=len, default=<str>)
min([<str>, <str>])
max(<str>, <str>)
('%s-%d' % (<str>, <int>))
'{}:{:>2}'.format(<str>, <int>)
(<str>[:4] * 2)
next((x for x in <strs> if <bool|x:str>), <str>)
(lambda x: <str|x:str>)(<str>)
(w := <str>)
Note(<str>, <int>, <strs>).text
Agent(<str>).step(<str>)
type(<str>).__name__
traced_ask(<str>)
functools.reduce(joined, <strs>, <str>)
""",
    int=r"""
4: rate(<str>)
rate(<strs>)
rate([<str>, <int>])
rate({'k': <strs>, 'n': <int>})
rate(<rows>)
2: log(<str>)
(<int> + <int>)
(<int> * <int> % 11)
(<int> - <int>)
(-<int>)
abs(<int>)
(<int> // 3)
(<int> % (1 + abs(<int>)))
(<int> % 7 ** 2)
(<int> | <int>)
len(<str>)
len(<strs>)
len(<table>)
sum(<ints>)
sum(<ints>, <int>)
max(<int>, <int>)
min(<ints>, default=<int>)
max(<ints>, default=0)
round(<int> / 2)
sum(<int|x:str> for x in <strs>)
sum([<int|n:int> for n in <ints>])
int(<bool>)
(<ints> or [<int>])[-1]
<pair>[1]
<note>.score
len(<note>.tags)
<table>.get(<str>, <int>)
(<table>.get('a') or <int>)
sum(<table>.values())
<str>.count('a')
<strs>.count(<str>)
<str>.find(<str>)
(<int> if <bool> else <int>)
(<int> or <int>)
(m := <int>)
plan(<str>)['n']
len([x for x in <strs> if <bool|x:str>])
max((len(x) for x in <strs>), default=0)
len(set(<strs>))
len({x: 1 for x in <strs>})
math.gcd(<int>, <int>)
len(<rows>)
len(list(chatter(<strs>)))
deep(<str>, <int> % 3)
json.loads(json.dumps(<int>))
functools.reduce(lambda n, x: n + <int|x:int,n:int>, <ints>, 0)
""",
    bool=r"""
3: coin(<str>)
(<int> < <int>)
(<int> == <int>)
(<int> <= <int> < <int>)
(<str> == <str>)
(<str> < <str> <= <str>)
(<str> in <strs>)
(<str> not in <str>)
(<str> in <table>)
(not <bool>)
(<bool> and <bool>)
(<bool> or <bool>)
(not <strs>)
bool(<str>)
isinstance(<str>, str)
(<strs> is <strs>)
(<str> is None)
(<note> is not None)
any(<bool|x:str> for x in <strs>)
all(<bool|n:int> for n in <ints>)
any(<ints>)
<str>.startswith('a')
<str>.isdigit()
(<ints> == <ints>)
(<pair> < <pair>)
(<bool> if <bool> else <bool>)
(<int> != 2 != <int>)
(<table> == <table>)
""",
    strs=r"""
3: [<str|x:str> for x in <strs>]
2: [ask(x) for x in <strs>]
2: [draft(<str|n:int>, n) for n in range(3)]
2: facts(<str>)
[<str|x:str> for x in <strs> if <bool|x:str>]
[x[:4] + y for x in <strs> for y in <strs>][:6]
[<str>, <str>]
[<str>, *<strs>]
[*<strs>, <str>][:7]
(<strs> + <strs>)[:6]
<str>.split('a')
<str>.split()
sorted(<strs>)
sorted(<strs>, key=len, reverse=True)
sorted(<strs>, key=lambda x: (len(x), x))
sorted(<strs>, key=lambda x: rate(x))
list(map(lambda x: <str|x:str>, <strs>))
list(map(ask, <strs>))
list(map(str, <ints>))
<strs>[:]
<strs>[1:]
<strs>[::-1]
list(<strs>)
<strs>.copy()
list(<table>)
sorted(<table>)
list(<str>)[:3]
[x for xs in [<strs>, <strs>] for x in xs][:6]
list(chatter(<strs>))
[*chatter(<strs>)]
[(y := ask(x)) + y for x in <strs>]
list(filter(lambda x: <bool|x:str>, <strs>))
sorted({<str>, <str>})
<note>.tags
[x for x, n in zip(<strs>, <ints>) if n > <int>]
list(dict.fromkeys(<strs>))
[s for s, n in sorted(<table>.items(), key=lambda i: (-i[1], i[0]))]
plan(<str>)['tags']
(lambda *xs: [ask(x) for x in xs])(*<strs>)
[f"{x}{n}" for n, x in enumerate(<strs>)]
json.loads(json.dumps(<strs>))
(<strs> or <strs>)
(<strs> if <bool> else <strs>)
list(itertools.chain(<strs>, <strs>))[:6]
Agent(<str>).steps(<strs>)
""",
    ints=r"""
3: [<int|x:str> for x in <strs>]
[rate(x) for x in <strs>]
[len(ask(x)) for x in <strs>]
[<int|n:int> for n in <ints>]
[<int>, <int>]
[<int>, *<ints>][:7]
(<ints> + <ints>)[:6]
<ints>[1:]
list(<ints>)
sorted(<ints>)
list(<table>.values())
list(map(len, <strs>))
list(range(<int> % 4))
[n for n in <ints> if n > <int>]
[n for row in <rows> for n in row][:6]
[len(s) + n for s, n in zip(<strs>, <ints>)]
sorted(<ints>, key=lambda n: <int|n:int>)
[n % 7 * 2 for n in <ints> if (k := n % 3) and k < <int>]
[log(x) for x in <strs>]
[len(xs) for xs in [<strs>, <strs>]]
[*map(rate, <strs>)]
list(reversed(<ints>))
""",
    rows=r"""
[<ints>, <ints>]
[[<int>] * 2, <ints>]
[<ints_var>, <ints_var>]
<rows>[:2]
[[rate(x), <int|x:str>] for x in <strs>]
[<ints>] * 2
[list(r) for r in <rows>]
[r for r in <rows> if r]
sorted(<rows>)
[[n, m] for n in <ints> for m in <ints>][:4]
""",
    table=r"""
2: {x: <int|x:str> for x in <strs>}
2: {x: rate(x) for x in <strs>}
{<str>: <int>}
{'a': <int>, 'b': <int>}
{**<table>, 'c': <int>}
dict(<table>)
dict(zip(<strs>, <ints>))
{x: n for n, x in enumerate(<strs>)}
(<table> | <table>)
dict(a=<int>, b=<int>)
{ask(x): n for n, x in enumerate(<strs>)}
<table>.copy()
{x: n + 1 for x, n in <table>.items() if n < <int>}
plan(<str>)['table']
dict([(<str>, <int>), <pair>])
dict(sorted(<table>.items()))
Counter(<strs>)
""",
    pair=r"""
2: (<str>, <int>)
2: pair_of(<str>)
2: (ask(<str>), rate(<str>))
2: divided(<strs>)
max([<pair>, <pair>])
(<pair> if <bool> else <pair>)
tuple([<str>, <int>])
max([(x, <int|x:str>) for x in <strs>], key=lambda p: p[1], default=<pair>)
min(((x, rate(x)) for x in <strs>), default=<pair>)
(*<pair>,)
""",
    note=r"""
3: note_of(<str>)
Note(<str>, <int>, <strs>)
Note(ask(<str>), score=<int>, tags=[<str>])
max([<note>, <note>], key=lambda o: o.score)
(<note> if <bool> else <note>)
sorted([note_of(x) for x in <strs>] + [<note>], key=lambda o: (-o.score, o.text))[0]
replace(<note>, text=<str>)
""",
)

# What may well raise: written now and then.
RISKS = _by_type(
    str=r"""
<strs>[0]
risky(<str>)
<strs>[<int>]
max(<strs>)
(<str> + <int>)
""",
    int=r"""
<ints>[<int>]
(7 // <int>)
<strs>.index(<str>)
int(<str>)
<table>['a']
""",
    bool=r"""
(<str> < <int>)
bool(risky(<str>))
""",
    strs=r"""
[risky(x) for x in <strs>]
[x[0] for x in <strs>]
""",
    ints=r"""
[int(x) for x in <strs>]
[7 // n for n in <ints>]
""",
    table=r"""
{x: <table>[x] for x in <strs>}
json.loads(<str>)
""",
)

# Without quotes, since before Python 3.12 those of an f-string cannot nest.
NAMES = _by_type(
    str=r"""
ask(<str_var>)
<str_var>
<str_var>.upper()
draft(<str_var>, <int_var>)
""",
    int=r"""
rate(<str_var>)
<int_var>
len(<strs_var>)
(<int_var> + 2)
""",
    bool=r"""
coin(<str_var>)
(<int_var> > 1)
""",
    strs=r"""
<strs_var>
[ask(x) for x in <strs_var>]
facts(<str_var>)
""",
)
