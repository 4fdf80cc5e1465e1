"""Finds the kernels: variables that are contracted with the flow.

Through transposes, reshapes, casts and factors, and where flow chooses which;
not the tables that tokens are read from, nor what a low-rank product is made of
beside the kernel that it is added to.
"""

from synflow_tf.graph import families
from synflow_tf.graph import identity
from synflow_tf.graph import leaves
from synflow_tf.graph import values

_NO_KERNELS = ("bias", "embeddings")


def contracted(graph):
    """Returns the kernels of a `graph.Graph`, an `IdentitySet`.

    They are variables of rank 2 or more.
    """
    found, tables = identity.IdentitySet(), identity.IdentitySet()
    chosen = {}
    for node in graph.nodes:
        if node.type == values.LEAF:
            found |= _of_layer(node.call.layer)
        elif node.type in families.GATHERS:
            if node.outputs[0].is_flow:
                table = values.variables_of(node.inputs[0])
                # Matrices by flow, as of experts, are no rows of a table.
                matrices = len(node.inputs[0].shape) > 2
                if matrices and node.inputs[1].constant is None:
                    chosen[node.outputs[0]] = table
                else:
                    tables |= table
        elif node.type in families.RESHAPES and node.inputs[0] in chosen:
            chosen[node.outputs[0]] = chosen[node.inputs[0]]
        elif node.outputs and node.outputs[0].is_flow:
            if node.type in families.CONTRACTIONS | leaves.OPERATIONS:
                for value in node.inputs:
                    found |= _of_weight(value)
                    found |= chosen.get(value, ())
    matrices = (v for v in found if len(v.shape) > 1)
    return identity.IdentitySet(matrices) - tables


def _of_layer(layer):
    """Lists the kernels of a layer that has a rule of its own."""
    return [v for v in layer.weights if not any(map(v.name.count, _NO_KERNELS))]


def _of_weight(value):
    """Lists the variables that a weight is a kernel by."""
    if not value.is_weight or value.node is None:
        return []
    node = value.node
    if node.type == values.READ:
        return [node.variable]
    inputs = [v for v in node.inputs if v.is_weight]
    if node.type in families.GATHERS:
        return []
    if node.type in families.PRODUCTS | families.QUOTIENTS:
        inputs = [v for v in inputs if v.size == value.size]
    if node.type in families.SUMS:  # A bias is broadcast, and is no kernel.
        inputs = [v for v in inputs if v.shape == value.shape]
        single = [v for v in inputs if not _has_product(v)]
        inputs = single or inputs
    return [variable for v in inputs for variable in _of_weight(v)]


def _has_product(value):
    """Returns whether weights are contracted with weights in a value."""
    node = value.node
    if node is None or not value.is_weight:
        return False
    weights = [v for v in node.inputs if v.is_weight]
    if node.type in families.CONTRACTIONS and len(weights) > 1:
        return True
    return any(map(_has_product, weights))
