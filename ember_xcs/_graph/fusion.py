"""Which pure nodes may become one program: the rule "fusion never delays a host call".

For each pure node, its *frontier* is the set of what waits for it through pure nodes alone: host
calls, and results. Pure nodes with the same frontier are fused: whoever waits for one of them
waits for all of them, so that nobody waits longer. Frontiers only shrink along a path, and no
path that leaves a group through a host call can come back to it, so groups form no cycles.

Results count as waiting too, one for each set of host calls that they need: a result does not
wait for a call that it has nothing to do with, and is not lost where that call fails.

A node that is *heavy* should run as early as it can, while host calls are in flight, and not
when the last of them returns. Groups with heavy nodes are therefore split by the host calls
that their nodes directly wait for.

Sets are bit patterns in Python integers, interned; an ordinary graph has few and small ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["fusion_groups"]

_MANY_CALLS = 4096


def fusion_groups(
    parents: Sequence[Sequence[int]],
    pure: Sequence[bool],
    results: Collection[int],
    heavy: Collection[int] = (),
) -> list[int | None]:
    """Returns, for each node, the number of its group; None for nodes that are not pure.

    Args:
        parents: For each node, the nodes that it reads; all have smaller numbers.
        pure: For each node, whether it may be fused.
        results: The nodes whose values are wanted.
        heavy: Pure nodes with much work, to be run as early as possible.

    Example:
        Two branches, each a host call (1, 2) and pure work on its answer (3, 4), meet in node 5:

        >>> fusion_groups(
        ...     [[], [0], [0], [1], [2], [3, 4]], [True, False, False, True, True, True], {5}
        ... )
        [0, None, None, 1, 1, 1]
    """
    if not any(pure):
        return [None] * len(parents)
    origins = _origins(parents, pure)
    frontiers = _frontiers(parents, pure, results, origins)
    split = {frontiers[node] for node in heavy}
    numbers: dict[tuple[int, int], int] = {}
    groups: list[int | None] = []
    for node, is_pure in enumerate(pure):
        if not is_pure:
            groups.append(None)
            continue
        frontier = frontiers[node]
        key = (frontier, origins[node] if frontier in split else 0)
        groups.append(numbers.setdefault(key, len(numbers)))
    return groups


def _origins(parents: Sequence[Sequence[int]], pure: Sequence[bool]) -> list[int]:
    """For each node, the host calls that it has to wait for, as bits.

    In a graph of very many host calls these are only the ones that it waits for directly: then
    some groups stay apart that could be one.
    """
    bits = {node: k for k, node in enumerate(n for n, is_pure in enumerate(pure) if not is_pure)}
    direct = len(bits) > _MANY_CALLS
    interned: dict[int, int] = {}
    origins: list[int] = []
    for reads in parents:
        found = 0
        for parent in reads:
            if pure[parent]:
                found |= origins[parent]
            else:
                found |= (0 if direct else origins[parent]) | 1 << bits[parent]
        origins.append(interned.setdefault(found, found))
    return origins


def _frontiers(
    parents: Sequence[Sequence[int]],
    pure: Sequence[bool],
    results: Collection[int],
    origins: Sequence[int],
) -> list[int]:
    """For each pure node, what waits for it through pure nodes alone, as bits."""
    bits: dict[tuple[str, int], int] = {}
    interned: dict[int, int] = {}
    frontiers = [0] * len(parents)
    for node in results:
        if pure[node]:
            frontiers[node] |= 1 << bits.setdefault(("result", origins[node]), len(bits))
    for node in range(len(parents) - 1, -1, -1):
        if pure[node]:
            reach = frontiers[node] = interned.setdefault(frontiers[node], frontiers[node])
        elif any(pure[parent] for parent in parents[node]):
            reach = 1 << bits.setdefault(("call", node), len(bits))
        else:
            continue
        for parent in parents[node]:
            if pure[parent]:
                frontiers[parent] |= reach
    return frontiers
