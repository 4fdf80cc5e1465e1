"""Starts flow at tables, codes and constants, where no float input does.

A table that is read by tokens, a code that meets a kernel, and what is
concatenated with flow: all of them are ones.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import values


def start(nodes, depending):
    """Returns the nodes, with "_Source" nodes where flow starts.

    Their inputs are the unit, a `graph.Value` of its own until `pass_degrees`,
    and what is read if that is in `depending`, the set of values that depend on
    scored weights.
    """
    result = []
    for node in nodes:
        output = node.outputs[0]
        if node.type in families.GATHERS and output.is_flow:
            table = node.inputs[0]
            if not table.is_flow:
                node = _source(node, table, output, node, depending)
        else:
            inputs = list(node.inputs)
            for i in _starting(node):
                read = inputs[i]
                inputs[i] = dataclasses.replace(
                    read, kind=values.FLOW, constant=None
                )
                result.append(_source(node, read, inputs[i], None, depending))
            if inputs != node.inputs:
                node = dataclasses.replace(node, inputs=inputs)
        result.append(node)
    return result


def _starting(node):
    """Returns at which inputs of a node flow starts: positions."""
    data = [i for i in families.data_of(node) if not node.inputs[i].is_flow]
    if node.type in families.CONCATENATIONS and node.flows:
        return [i for i in data if not _is_padding(node.inputs[i])]
    if node.type in families.CONTRACTIONS and not node.flows:
        if node.outputs[0].is_flow:
            return [i for i in data if node.inputs[i].kind == values.INDEX]
    return []


def _source(node, read, output, gathering, depending):
    """Returns a node that starts flow at what is read.

    `gathering` is the node that takes rows of that, or None.
    """
    inputs = [values.Value(values.FLOW, (), output.dtype)]
    inputs += [read] if read in depending else []
    return dataclasses.replace(
        node,
        type="_Source",
        inputs=inputs,
        outputs=[output],
        extra={"gathering": gathering},
    )


def _is_padding(value):
    """Tells whether a value is zeros, which are structure."""
    constant = value.constant if value.kind == values.CONSTANT else None
    return constant is not None and not (constant.numpy() != 0).any()
