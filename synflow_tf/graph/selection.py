"""Selects the weights that pruning is about: kernels, as the graph shows."""

from synflow_tf import graph as graph_lib
from synflow_tf.graph import kernels as kernels_lib
from synflow_tf.graph import variables


def select(model, prunable=None, inputs=None, graph=None):
    """Lists the prunable weights of a model, in order, at least one.

    See `synflow_tf.prune` for `prunable` and `inputs`; `graph` is that of the
    model, if it was read already. Raises as `variables.prunable_weights` and
    `graph.read` do.
    """
    if graph is None:
        graph = graph_lib.read(model, inputs)
    kernels = kernels_lib.contracted(graph)
    return variables.prunable_weights(model, prunable, kernels)
