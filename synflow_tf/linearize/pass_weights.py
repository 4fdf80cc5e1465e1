"""Decides how what lies between a variable and the flow is computed.

What holds no scored weight is computed as it is, signs and constants included,
and its magnitude is taken. What is linear in scored weights runs under the
rules, on magnitudes. A kernel that is computed otherwise from one scored weight
(standardized, divided by its length) is that weight with the magnitudes of what
is computed.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import values
from synflow_tf.linearize import walks

_LINEAR = frozenset(
    "Add AddN AddV2 Complex MatrixBandPart Neg Pad PadV2 ReverseV2 Roll "
    "Sub".split()
).union(
    families.CONCATENATIONS,
    families.CONTRACTIONS,
    families.PRODUCTS,
    families.RESHAPES,
    families.SLICES,
    [values.READ],
)


def depending(nodes, scored):
    """Returns the set of weights that scored variables take part in."""
    found = walks.downstream(
        nodes, lambda node: node.type == values.READ and node.variable in scored
    )
    return {value for value in found if value.is_weight}


def compute(nodes, depends):
    """Returns the nodes that run under rules, those of flow or scored weights.

    They are "_Computed" for kernels that are no linear function of a scored
    weight. `depends` is what `depending` returns.
    """
    made_of = {}  # of each value, the scored weights in it
    result = []
    for node in nodes:
        value = node.outputs[0]
        if value in depends:
            parts = [made_of[v] for v in node.inputs if v in depends]
            scored = frozenset().union(*parts) or frozenset(node.outputs)
            made_of.update(dict.fromkeys(node.outputs, scored))
            weight = next(iter(scored))
            fits = len(scored) == 1 and weight.shape == value.shape
            if fits and not _is_linear(node, parts, depends):
                node = dataclasses.replace(
                    node,
                    type="_Computed",
                    inputs=[weight],
                    extra={"value": value},
                )
        if any(v.is_flow or v in depends for v in node.outputs):
            result.append(node)
    return result


def _is_linear(node, parts, depends):
    """Tells whether a node is linear in the scored weights, taken together."""
    if sum(map(len, parts)) > len(frozenset().union(*parts)):
        return False  # A weight meets itself.
    if node.type in families.QUOTIENTS:
        return node.inputs[1] not in depends
    return node.type in _LINEAR
