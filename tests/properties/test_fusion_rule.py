"""Fusion delays no host call and no result: against a simulation that knows nothing of the rule.

Pure nodes take no time, host calls as long as the example says. A group begins when all that its
members read from outside is there, and all of them have their values then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember_xcs._graph import fusion
from ember_xcs._graph.fusion import fusion_groups

Parents = list[list[int]]
Case = tuple[Parents, list[bool], set[int]]

HEAVY = 2.0


@st.composite
def random_graphs(draw: st.DrawFn, max_size: int = 14) -> Case:
    """What each node reads, which are pure, and which are results."""
    size = draw(st.integers(1, max_size))
    parents = [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else []
        for node in range(size)
    ]
    pure = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    sinks = set(range(size)) - {parent for reads in parents for parent in reads}
    results = draw(st.sets(st.integers(0, size - 1))) | sinks
    return parents, pure, results


def quotient(parents: Parents, groups: Sequence[object]) -> dict[object, set[object]]:
    """Who reads whom, groups for nodes; a node without a group is one of its own."""
    key = [("node", n) if group is None else group for n, group in enumerate(groups)]
    reads: dict[object, set[object]] = {k: set() for k in key}
    for node, sources in enumerate(parents):
        reads[key[node]] |= {key[source] for source in sources} - {key[node]}
    return reads


def simulate(
    parents: Parents, groups: Sequence[object], seconds: dict[int, float]
) -> tuple[dict[int, float], dict[int, float]]:
    """When each node begins, and when its value is there; fails where groups form a cycle."""
    key = [("node", n) if group is None else group for n, group in enumerate(groups)]
    reads = quotient(parents, groups)
    begins: dict[object, float] = {}
    ends: dict[object, float] = {}
    while len(begins) < len(reads):
        ready = [k for k in reads if k not in begins and reads[k] <= ends.keys()]
        assert ready, f"the groups {groups} of {parents} form a cycle"
        for k in ready:
            begins[k] = max((ends[source] for source in reads[k]), default=0.0)
            lasts = seconds.get(k[1], 0.0) if isinstance(k, tuple) else 0.0
            ends[k] = begins[k] + lasts
    nodes = range(len(parents))
    return {n: begins[key[n]] for n in nodes}, {n: ends[key[n]] for n in nodes}


def check_no_delay(case: Case, groups: Sequence[object], seconds: dict[int, float]) -> None:
    parents, pure, results = case
    alone_begins, alone_ends = simulate(parents, [None] * len(parents), seconds)
    begins, ends = simulate(parents, groups, seconds)
    for node, is_pure in enumerate(pure):
        if not is_pure:
            assert begins[node] == alone_begins[node], f"host call {node} is delayed"
        if node in results:
            assert ends[node] == alone_ends[node], f"result {node} is delayed"


def durations(case: Case) -> st.SearchStrategy[dict[int, float]]:
    """Powers of two, some of them nothing: whatever is waited for too much shows."""
    hosts = [node for node, is_pure in enumerate(case[1]) if not is_pure]
    return st.permutations(hosts).map(
        lambda order: {node: 2.0**k if k else 0.0 for k, node in enumerate(order)}
    )


loads = st.dictionaries(st.integers(0, 13), st.sampled_from([0.0, 0.1, 0.4, HEAVY]))


@given(random_graphs(), loads, st.data())
@settings(max_examples=300)
def test_no_host_call_and_no_result_waits_longer(case, work, data) -> None:
    groups = fusion_groups(*case, work)
    assert [group is not None for group in groups] == case[1]
    check_no_delay(case, groups, data.draw(durations(case)))


@given(random_graphs(), loads, st.data())
@settings(max_examples=400)
def test_graphs_of_many_calls_obey_the_rule_in_sections(case, work, data) -> None:
    seconds = data.draw(durations(case))
    size = data.draw(st.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "_MANY_CALLS", 0)
        patch.setattr(fusion, "_SECTION", size)
        groups = fusion_groups(*case, work)
    check_no_delay(case, groups, seconds)
    assert [group is not None for group in groups] == case[1]


@given(random_graphs(), loads)
def test_no_result_depends_on_a_call_that_it_does_not_need(case, work) -> None:
    parents, pure, results = case
    groups = fusion_groups(*case, work)
    alone, fused = ancestors(parents, [None] * len(parents)), ancestors(parents, groups)
    key = [("node", n) if group is None else group for n, group in enumerate(groups)]
    hosts = {("node", n) for n, is_pure in enumerate(pure) if not is_pure}
    for node in range(len(parents)):
        if node in results or not pure[node]:
            assert fused[key[node]] & hosts == alone[("node", node)] & hosts


def ancestors(parents: Parents, groups: Sequence[object]) -> dict[object, set[object]]:
    reads = quotient(parents, groups)
    found: dict[object, set[object]] = {}
    while len(found) < len(reads):
        for k, sources in reads.items():
            if k not in found and sources <= found.keys():
                found[k] = sources.union(*(found[source] for source in sources))
    return found


@given(random_graphs(), loads)
def test_a_purely_numeric_graph_is_one_group(case, work) -> None:
    parents, _, results = case
    assert set(fusion_groups(parents, [True] * len(parents), results, work)) == {0}


@given(random_graphs(), st.data())
@settings(max_examples=150)
def test_a_heavy_node_begins_as_early_as_it_can(case, data) -> None:
    parents, pure, _ = case
    heavy = [node for node, is_pure in enumerate(pure) if is_pure]
    work = {node: HEAVY for node in heavy if data.draw(st.booleans())}
    seconds = data.draw(durations(case))
    groups = fusion_groups(*case, work)
    alone, _ = simulate(parents, [None] * len(parents), seconds)
    begins, _ = simulate(parents, groups, seconds)
    for node in work:
        assert begins[node] == alone[node]


@given(random_graphs(), loads)
def test_work_that_others_would_notice_is_fused_only_with_what_they_wait_for(case, work) -> None:
    """Nodes of unknown or heavy work share a group only where the same host calls wait for both."""
    parents, pure, _ = case
    groups = fusion_groups(*case, work)
    waiting = waiting_calls(parents, pure)
    for group in set(groups) - {None}:
        members = [node for node, found in enumerate(groups) if found == group]
        if sum(work.get(node, math.inf) for node in members) > 1:
            assert len({frozenset(waiting[node]) for node in members}) == 1


def waiting_calls(parents: Parents, pure: Sequence[bool]) -> list[set[int]]:
    """The host calls that wait for each node through pure nodes alone."""
    found: list[set[int]] = [set() for _ in parents]
    for node in range(len(parents) - 1, -1, -1):
        for parent in parents[node]:
            found[parent] |= found[node] if pure[node] else {node}
    return found


@given(random_graphs(max_size=8), st.data())
@settings(max_examples=150)
def test_light_work_needs_no_more_groups_than_calls_on_the_longest_path_ask_for(case, data) -> None:
    """A chain of calls, with light work before each of them and at the end, is one group a step."""
    steps = data.draw(st.integers(1, 5))
    parents: Parents = []
    pure: list[bool] = []
    before: list[int] = []
    for _ in range(steps):
        mids = []
        for _ in range(data.draw(st.integers(1, 3))):
            parents.append(before)
            pure.append(True)
            mids.append(len(parents) - 1)
        calls = []
        for mid in mids:
            parents.append([mid])
            pure.append(False)
            calls.append(len(parents) - 1)
        before = calls
    parents.append(before)
    pure.append(True)
    groups = fusion_groups(parents, pure, {len(parents) - 1}, dict.fromkeys(range(64), 0.01))
    assert len(set(groups) - {None}) == steps + 1


# The smallest graphs that show each side of the rule

#     0 fast call   1 slow call
#     2 reads 0     3 reads 1        (pure, of one level)
#     4 call, reads 2
LEVELS: Case = ([[], [], [0], [1], [2]], [False, False, True, True, False], {3, 4})


def test_grouping_by_level_would_delay_a_call() -> None:
    seconds = {0: 1.0, 1: 100.0}
    with pytest.raises(AssertionError, match="host call 4 is delayed"):
        check_no_delay(LEVELS, [None, None, 0, 0, None], seconds)
    check_no_delay(LEVELS, fusion_groups(*LEVELS), seconds)


def test_the_simulation_finds_groups_that_form_a_cycle() -> None:
    with pytest.raises(AssertionError, match="form a cycle"):
        check_no_delay(([[], [0], [1]], [True, False, True], {2}), [0, None, 0], {1: 1.0})


def test_light_work_before_many_calls_is_one_group() -> None:
    # 0, 2, 4 pure; 1, 3, 5 calls that read them
    parents = [[], [0], [], [2], [], [4]]
    pure = [True, False] * 3
    assert fusion_groups(parents, pure, {1, 3, 5}, {0: 0.0, 2: 0.0, 4: 0.0})[::2] == [0, 0, 0]


def test_work_of_unknown_size_is_no_reason_for_others_to_wait() -> None:
    parents = [[], [0], [], [2]]
    groups = fusion_groups(parents, [True, False] * 2, {1, 3})
    assert groups[0] != groups[2]


def test_light_work_that_is_much_together_stays_apart() -> None:
    parents = [[], [0], [], [2]]
    groups = fusion_groups(parents, [True, False] * 2, {1, 3}, {0: 0.6, 2: 0.6})
    assert groups[0] != groups[2]


def test_light_work_for_a_later_call_runs_with_what_runs_earlier() -> None:
    # 0 pure -> 1 call; 2 pure, for call 3, which waits for 1 too
    parents = [[], [0], [], [1, 2]]
    pure = [True, False, True, False]
    assert fusion_groups(parents, pure, {3}, {0: 0.0, 2: 0.0})[::2] == [0, 0]


def test_light_work_does_not_run_before_what_it_reads() -> None:
    # 0 pure -> call 1 -> 3 pure -> call 4; 2 pure feeds 4 and 5 pure; call 6 reads 4 and 5
    parents = [[], [0], [], [1], [2, 3], [2], [4, 5]]
    pure = [True, False, True, True, False, True, False]
    case = parents, pure, {6}
    groups = fusion_groups(*case, dict.fromkeys((0, 2, 3, 5), 0.0))
    check_no_delay(case, groups, {1: 1.0, 4: 2.0, 6: 4.0})
    assert len(set(groups) - {None}) == 2


def test_heavy_work_runs_while_a_call_is_in_flight() -> None:
    # 0 heavy; 1 call; 2 reads both
    groups = fusion_groups([[], [], [0, 1]], [True, False, True], {2}, {0: HEAVY, 2: 0.0})
    assert groups == [0, None, 1]


def test_heavy_work_does_not_wait_for_what_only_feeds_it_late() -> None:
    # 0 pure feeds heavy 1 and call 4; 4 waits for call 2 too; 3 pure reads 2, and feeds 4
    parents = [[], [0], [], [2, 0], [0, 3], [1, 4]]
    pure = [True, True, False, True, False, True]
    groups = fusion_groups(parents, pure, {5}, {0: 0.0, 1: HEAVY, 3: 0.0, 5: 0.0})
    begins, _ = simulate(parents, groups, {2: 4.0, 4: 1.0})
    assert begins[1] == 0.0


def test_what_a_later_section_reads_is_not_delayed(monkeypatch) -> None:
    monkeypatch.setattr(fusion, "_MANY_CALLS", 1)
    monkeypatch.setattr(fusion, "_SECTION", 3)
    # 0 call; 1 reads it; 2 reads nothing; calls 3 and 4 read 1 and 2
    case = [[], [0], [], [1], [2]], [False, True, True, False, False], {3, 4}
    groups = fusion_groups(*case)
    assert groups[1] != groups[2]
    check_no_delay(case, groups, {0: 8.0, 3: 1.0, 4: 1.0})


def test_sections_keep_their_groups_apart(monkeypatch) -> None:
    monkeypatch.setattr(fusion, "_MANY_CALLS", 1)
    monkeypatch.setattr(fusion, "_SECTION", 2)
    parents = [[], [0], [1], [2], [3]]
    assert fusion_groups(parents, [False, True, True, True, False], {4}) == [None, 0, 1, 1, None]
