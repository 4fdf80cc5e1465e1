"""Where flow starts, if not at a float input: at tables, codes and constants.

A table that is read by tokens, a code that meets a kernel, and what is
concatenated with flow: all of them are ones.
"""

import dataclasses

from synflow_tf import graph as graph_lib
from synflow_tf.graph import families
from synflow_tf.graph import flatten


def start(nodes, depending):
    """Puts in nodes at which flow starts.

    Args:
        nodes: list of `graph.Node`.
        depending: set of `graph.Value`, those that depend on scored weights.

    Returns:
        list of `graph.Node`, with "_Source" where flow starts: its inputs are
        the unit, a `graph.Value` of its own until `pass_degrees`, and what is
        read if that is scored.
    """
    result = []
    for node in nodes:
        flows = node.flows
        if node.type in flatten.GATHERS and node.outputs[0].is_flow:
            if not node.inputs[0].is_flow:
                node = _source(node, node.outputs[0], depending)
        elif node.type in families.CONTRACTIONS and node.outputs[0].is_flow:
            if not flows:
                indices = [
                    i
                    for i in families.data_of(node)
                    if node.inputs[i].kind == "I"
                ]
                node = _with_sources(node, indices, result, depending)
        elif node.type in families.CONCATENATIONS and flows:
            others = [
                i
                for i in families.data_of(node)
                if not node.inputs[i].is_flow
                and not _is_padding(node.inputs[i])
            ]
            if others:
                node = _with_sources(node, others, result, depending)
        result.append(node)
    return result


def _source(node, output, depending):
    """A node that returns ones, or what is read if that is scored."""
    read = [v for v in node.inputs[:1] if v in depending]
    unit = graph_lib.Value("F", (), output.dtype)
    axis = 0
    if len(node.inputs) > 2:
        axis = int(node.inputs[2].constant)
    return dataclasses.replace(
        node,
        type="_Source",
        inputs=[unit, *read],
        outputs=[output],
        extra={"axis": axis},
    )


def _with_sources(node, positions, result, depending):
    """A node, some of whose inputs are sources, which are appended."""
    inputs = list(node.inputs)
    for i in positions:
        output = dataclasses.replace(inputs[i], kind="F", constant=None)
        fake = dataclasses.replace(node, inputs=[inputs[i]], gates=())
        source = _source(fake, output, depending)
        source.extra["axis"] = None
        result.append(source)
        inputs[i] = output
    return dataclasses.replace(node, inputs=inputs)


def _is_padding(value):
    """Whether a value is zeros, which are structure."""
    if value.kind != "C" or value.constant is None:
        return False
    return not (value.constant.numpy() != 0).any()
