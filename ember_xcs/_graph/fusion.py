"""Which pure nodes may become one program: the rule "fusion never delays a host call".

Three things are known of each pure node:

- its *origins*: the host calls that it has to wait for;
- its *frontier*: what waits for it through pure nodes alone: host calls, and results;
- its *deadline*: the host calls that all of its frontier has to wait for in any case. Origins
  are among them, and as long as a node runs by its deadline, nobody waits for it.

Results count as waiting, one for each set of host calls that they need: a result does not wait
for a call that it has nothing to do with, and is not lost where that call fails.

Nodes with the same frontier are fused: whoever waits for one of them waits for all of them, so
that nobody waits longer, whatever work they are. Nodes whose work is known, and small together,
are fused where they have the same deadline, though others wait for them; so is, earlier than that,
what could run at the same earlier time as others.

Groups form no cycles: along a path of pure nodes deadlines grow, and with the same deadline
frontiers shrink; and what a group waits for is among what each reader of it waited for before.

The deadline of a node that is *heavy* is its origins: it runs as early as it can, while host
calls are in flight.

Sets are bit patterns in Python integers, interned; an ordinary graph has few and small ones. A
graph with very many calls is taken in sections, each of which sees the others as calls.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

__all__ = ["fusion_groups"]

_MANY_CALLS = 4096
_SECTION = 2048

Parents = Sequence[Sequence[int]]


def fusion_groups(
    parents: Parents,
    pure: Sequence[bool],
    results: Collection[int],
    work: Mapping[int, float] | None = None,
) -> list[int | None]:
    """Returns, for each node, the number of its group; None for nodes that are not pure.

    Args:
        parents: For each node, the nodes that it reads; all have smaller numbers.
        pure: For each node, whether it may be fused.
        results: The nodes whose values are wanted.
        work: The work of pure nodes for which it is known, where 1 is what a host call would
            notice if it had to wait for it; a node with more is heavy.

    Example:
        Two branches, each a host call (1, 2) and pure work on its answer (3, 4), meet in node 5:

        >>> fusion_groups(
        ...     [[], [0], [0], [1], [2], [3, 4]], [True, False, False, True, True, True], {5}
        ... )
        [0, None, None, 1, 1, 1]
    """
    if not any(pure):
        return [None] * len(parents)
    calls = pure.count(False)
    if calls and calls + len(results) > _MANY_CALLS:
        return _in_sections(parents, pure, set(results), work or {})
    return _Fusion(parents, pure, results, work or {}).groups()


def _in_sections(
    parents: Parents, pure: Sequence[bool], results: Collection[int], work: Mapping[int, float]
) -> list[int | None]:
    """The groups of one section after the other; none extends into the next."""
    last_reader = list(range(len(parents)))
    for node, reads in enumerate(parents):
        for parent in reads:
            last_reader[parent] = node
    groups: list[int | None] = []
    count = 0
    for start in range(0, len(parents), _SECTION):
        found = _section(start, parents, pure, last_reader, results, work)
        groups += [None if group is None else group + count for group in found]
        count += 1 + max((group for group in found if group is not None), default=-1)
    return groups


def _section(
    start: int,
    parents: Parents,
    pure: Sequence[bool],
    last_reader: Sequence[int],
    results: Collection[int],
    work: Mapping[int, float],
) -> list[int | None]:
    """The groups of a section; values from and for other sections are from and for calls."""
    stop = min(start + _SECTION, len(parents))
    before = sorted({p for node in range(start, stop) for p in parents[node] if p < start})
    place = {node: k for k, node in enumerate([*before, *range(start, stop)])}
    read_later = [[place[n]] for n in range(start, stop) if last_reader[n] >= stop]
    fusion = _Fusion(
        [[] for _ in before] + [[place[p] for p in parents[n]] for n in range(start, stop)]
        + read_later,
        [False] * len(before) + list(pure[start:stop]) + [False] * len(read_later),
        {place[n] for n in range(start, stop) if n in results},
        {place[n]: work[n] for n in range(start, stop) if n in work},
    )  # fmt: skip
    return fusion.groups()[len(before) : len(before) + stop - start]


class _Fusion:
    """The sets of one graph; all bits of them are calls, but for those of frontiers."""

    def __init__(
        self,
        parents: Parents,
        pure: Sequence[bool],
        results: Collection[int],
        work: Mapping[int, float],
    ) -> None:
        self.parents, self.pure, self.work = parents, pure, work
        self.nodes = [node for node, is_pure in enumerate(pure) if is_pure]
        self.results = set(results)
        self._interned: dict[int, int] = {}
        self.origins = self._origins()
        self.deadlines = self._deadlines()
        self.frontiers = self._frontiers()

    def _kept(self, found: int) -> int:
        return self._interned.setdefault(found, found)

    def _origins(self) -> list[int]:
        bits = [1 << k for k in range(self.pure.count(False))][::-1]
        after: list[int] = []  # what waits for a node waits for these
        origins: list[int] = []
        for node, reads in enumerate(self.parents):
            found = 0
            for parent in reads:
                found |= after[parent]
            found = self._kept(found)
            origins.append(found)
            after.append(found if self.pure[node] else self._kept(found | bits.pop()))
        return origins

    def _deadlines(self) -> list[int]:
        origins = self.origins
        everything = (1 << self.pure.count(False)) - 1  # nobody waits for it
        deadlines = [everything] * len(origins)
        for node in range(len(origins) - 1, -1, -1):
            is_heavy = self.work.get(node, 0.0) > 1
            if not self.pure[node] or node in self.results or is_heavy:
                deadlines[node] = origins[node]
            latest = self._kept(deadlines[node])
            for parent in self.parents[node]:
                deadlines[parent] &= latest
        return deadlines

    def _frontiers(self) -> list[int]:
        bits: dict[tuple[str, int], int] = {}
        frontiers = [0] * len(self.parents)
        for node in self.results:
            if self.pure[node]:
                result = ("result", self.origins[node])
                frontiers[node] |= 1 << bits.setdefault(result, len(bits))
        for node in range(len(self.parents) - 1, -1, -1):
            if self.pure[node]:
                reach = frontiers[node] = self._kept(frontiers[node])
            elif any(self.pure[parent] for parent in self.parents[node]):
                reach = 1 << bits.setdefault(("call", node), len(bits))
            else:
                continue
            for parent in self.parents[node]:
                if self.pure[parent]:
                    frontiers[parent] |= reach
        return frontiers

    def groups(self) -> list[int | None]:
        """The number of the group of each pure node."""
        light = self._light()
        times = self._earlier(light)
        numbers: dict[Hashable, int] = {}
        groups: list[int | None] = [None] * len(self.parents)
        for node in self.nodes:
            deadline = self.deadlines[node]
            key = times[deadline] if deadline in light else (deadline, self.frontiers[node])
            groups[node] = numbers.setdefault(key, len(numbers))
        return groups

    def _light(self) -> dict[int, float]:
        """The work for each deadline by which nobody notices who else waits."""
        total: dict[int, float] = {}
        for node in self.nodes:
            deadline = self.deadlines[node]
            total[deadline] = total.get(deadline, 0.0) + self.work.get(node, float("inf"))
        return {deadline: load for deadline, load in total.items() if load <= 1}

    def _earlier(self, light: Mapping[int, float]) -> dict[int, int]:
        """When the nodes of each deadline are run: early, where others are run then, too."""
        earliest = dict.fromkeys(light, 0)
        for node in self.nodes:
            deadline = self.deadlines[node]
            if deadline in light:
                earliest[deadline] |= self.origins[node]
                for parent in self.parents[node]:
                    if self.pure[parent] and self.deadlines[parent] != deadline:
                        earliest[deadline] |= self.deadlines[parent]
        members: dict[int, set[int]] = {}
        for deadline, early in earliest.items():
            members.setdefault(early, {early} & light.keys()).add(deadline)
        times = {deadline: deadline for deadline in light}
        for early, deadlines in members.items():
            if len(deadlines) > 1 and sum(light[deadline] for deadline in deadlines) <= 1:
                times.update(dict.fromkeys(deadlines, early))
        return times
