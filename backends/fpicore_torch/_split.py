"""An FX graph in two: what depends on some of its inputs, and what can be computed before."""

from typing import Any, NamedTuple

from torch.fx import Graph, GraphModule, Node


class Halves(NamedTuple):
    """before(*inputs) gives the values that after(*values, *inputs[places], *late) takes."""

    before: GraphModule
    after: GraphModule
    places: tuple[int, ...]
    """Inputs that the second half takes as they are."""


def halves(module: GraphModule, late: int) -> Halves:
    """Split off what depends on the last ``late`` inputs."""
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    early = inputs[: len(inputs) - late]
    after = set(inputs[len(early) :])
    for node in module.graph.nodes:
        if after.intersection(node.all_input_nodes):
            after.add(node)
    wanted: dict[Node, None] = {}
    for node in module.graph.nodes:
        if node in after or node.op == "output":
            wanted |= {x: None for x in node.all_input_nodes if x not in after}
    places = tuple([i for i, node in enumerate(early) if node in wanted])
    values = [node for node in wanted if node not in early]
    middle = [node for node in module.graph.nodes if node not in after and node.op != "output"]
    first = _module(module, middle, [], values)
    taken = [*values, *[early[i] for i in places], *inputs[len(early) :]]
    last = [node for node in module.graph.nodes if node in after and node.op != "placeholder"]
    last = [node for node in last if node.op != "output"]
    results = next(node for node in module.graph.nodes if node.op == "output").args[0]
    return Halves(first, _module(module, last, taken, results), places)


def _module(source: GraphModule, nodes: list[Node], taken: list[Node], results: Any) -> GraphModule:
    """The nodes as a module; what is taken from elsewhere are its inputs."""
    graph, known = Graph(), {}
    for node in taken:
        known[node] = graph.placeholder(f"taken_{len(known)}")
    for node in nodes:
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(tuple([known[node] for node in results]))
    graph.eliminate_dead_code()
    return GraphModule(source, graph)
