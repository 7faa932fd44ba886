"""Side effects in program order, plans that are made once, composites that stay opaque."""

import ember_xcs as xcs


def test_staged_side_effects_happen_in_program_order() -> None:
    log: list[str] = []
    first = xcs.host(lambda q: q)
    second = xcs.host(side_effects=True)(lambda q: log.append("second"))
    third = xcs.host(side_effects=True)(lambda q: log.append("third"))

    def program(q):
        found = first(q)
        return second(q), third(found)

    xcs.jit.trace(program)("x")
    assert log == ["second", "third"]


def test_a_graph_asked_for_some_outputs_again_is_not_compiled_again() -> None:
    traces: list[int] = []

    def add_one(x):
        traces.append(1)
        return x + 1

    graph = xcs.XCSGraph()
    graph.add_node(xcs.pure(add_one), "a")
    results = [xcs.execute_graph(graph, {"x": 1.0}, outputs=["a"])["a"] for _ in range(3)]
    assert [float(value) for value in results] == [2.0, 2.0, 2.0]
    assert len(traces) == 1


def test_a_node_may_be_called_self() -> None:
    graph = xcs.XCSGraph()
    graph.add_node(lambda q: q, "self")
    assert dict(xcs.execute_graph(graph, {"q": 1}, outputs=["self"])) == {"self": 1}


def test_without_recursion_a_composite_operator_is_one_task() -> None:
    ask = xcs.host(lambda q: q)

    class Inner(xcs.Operator):
        part: xcs.Operator

        def forward(self, q):
            return self.part(q)

    outer = Inner(xcs.Parallel(ask, ask))
    compiled = xcs.jit(outer, mode="structural", recursive=False)
    assert compiled("a") == ("a", "a")
    assert len(compiled.lower("a").plan.tasks) == 1
