"""What lies between a variable and the flow.

What holds no scored weight is computed as it is, signs and constants included,
and its magnitude is taken. What is linear in scored weights runs under the
rules, on magnitudes. A kernel that is computed otherwise from one scored weight
(standardized, divided by its length) is that weight with the magnitudes of what
is computed.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import values

_LINEAR = (
    families.CONCATENATIONS
    | families.CONTRACTIONS
    | families.RESHAPES
    | families.SLICES
    | {
        "Add",
        "AddN",
        "AddV2",
        "Complex",
        "Neg",
        "Pad",
        "PadV2",
        "ReverseV2",
        "Roll",
        "Sub",
    }
    | families.PRODUCTS
    | {"MatrixBandPart", values.READ}
)


def depending(nodes, scored):
    """The values that depend on scored weights, and not on flow.

    Args:
        nodes: list of `graph.Node`.
        scored: `IdentitySet` of variables.

    Returns:
        set of `graph.Value`.
    """
    found = set()
    for node in nodes:
        reads = node.type == values.READ and node.variable in scored
        if reads or not found.isdisjoint(node.inputs):
            found.update(v for v in node.outputs if v.is_weight)
    return found


def compute(nodes, depends):
    """Leaves nodes that run under rules only.

    Args:
        nodes: list of `graph.Node`.
        depends: set of `graph.Value`, see `depending`.

    Returns:
        list of `graph.Node`: those with flow or scored weights; "_Computed"
        for kernels that are no linear function of a scored weight.
    """
    made_of = {}  # of each value, the scored weights in it
    result = []
    for node in nodes:
        if not any(v.is_flow or v in depends for v in node.outputs):
            continue
        if node.outputs[0] in depends:
            parts = [made_of[v] for v in node.inputs if v in depends]
            scored = frozenset(node.outputs).union(*parts)
            if node.type != values.READ:
                scored = frozenset().union(*parts)
            made_of.update(dict.fromkeys(node.outputs, scored))
            value, weight = node.outputs[0], next(iter(scored))
            fits = len(scored) == 1 and weight.shape == value.shape
            if fits and not _is_linear(node, parts, depends):
                node = dataclasses.replace(
                    node,
                    type="_Computed",
                    inputs=[weight],
                    extra={"value": value},
                )
        result.append(node)
    return result


def _is_linear(node, parts, depends):
    """Whether a node is linear in the scored weights, taken together."""
    if sum(map(len, parts)) > len(frozenset().union(*parts)):
        return False  # A weight meets itself.
    if node.type in families.QUOTIENTS:
        return node.inputs[1] not in depends
    return node.type in _LINEAR
