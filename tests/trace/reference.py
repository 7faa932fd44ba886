"""A tiny interpreter of graphs: the oracle against which recorded graphs are checked."""

import jax

from ember_xcs._trace.structural import record_structure


def run_graph(graph, inputs):
    """Returns the outputs of a graph by name, each node run once, in order."""
    graph.validate()
    results = {}
    for node_id in graph.topological_sort():
        received = graph.prepare_node_inputs(node_id, results, inputs)
        results[node_id] = call_with_fields(graph[node_id].operator, received)
    return {name: read(port, results, inputs) for name, port in graph.outputs.items()}


def call_with_fields(operator, fields):
    if operator.signature.style == "inputs":
        return operator(inputs=fields)
    args = []
    for field in operator.signature.fields:
        if not field.positional or field.name not in fields:
            break
        args.append(fields.pop(field.name))
    return operator(*args, **fields)


def read(port, results, inputs):
    from ember_xcs._graph import pick_field

    if port.node is None:
        return inputs[port.field]
    value = results[port.node.id]
    return value if port.field is None else pick_field(value, port.field)


def record(function, *args, static=(), recursive=True, **kwargs):
    """Records a function for arguments like these, with inputs x0, x1, ..."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    labels = [f"x{k}" for k in range(len(leaves))]
    return record_structure(
        function, structure, leaves, labels, name="test", static=static, recursive=recursive
    )


def replay(recorded, *args, **kwargs):
    """Returns what a recorded function gives for other arguments."""
    leaves = jax.tree.leaves((args, kwargs))
    inputs = {f"x{k}": leaf for k, leaf in enumerate(leaves)}
    inputs = {name: inputs[name] for name in recorded.program.inputs}
    values = run_graph(recorded.program.graph, inputs)
    return recorded.result(recorded.program.results(values, inputs))
