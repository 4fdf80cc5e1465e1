"""Which weights pruning is about: the kernels that the graph shows."""

from synflow_tf import graph as graph_lib
from synflow_tf.graph import kernels as kernels_lib
from synflow_tf.graph import variables


def select(model, prunable=None, inputs=None, graph=None):
    """Selects the weights that pruning is about.

    Args:
        model: a built Keras model of either line.
        prunable: which weights; see `synflow_tf.prune`.
        inputs: an example batch, or specs; see `synflow_tf.prune`.
        graph: `graph.Graph` of the model, if it was read already.

    Returns:
        list of `variables.Weight`, in the order of `model.weights`, at least
        one.

    Raises:
        TypeError: see `variables.prunable_weights`.
        ValueError: likewise; and if the model cannot be read.
    """
    if graph is None:
        graph = graph_lib.read(model, inputs)
    kernels = kernels_lib.contracted(graph)
    return variables.prunable_weights(model, prunable, kernels)
