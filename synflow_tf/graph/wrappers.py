"""The wrappers of tensorflow-model-optimization (tfmot), from outside.

tfmot puts a layer into a `PruneLowMagnitude`, which has masks of its own and
multiplies the layer's weights by them before each call. To this library a
wrapped layer is the layer within, and the wrapper's mask is the mask of its
weight. tfmot is not imported: without it there is no wrapper.
"""

import sys

from synflow_tf.graph import identity

_CORE = "tensorflow_model_optimization.python.core"
_MODULE = f"{_CORE}.sparsity.keras.pruning_wrapper"


def is_wrapper(layer):
    """Whether a layer is a pruning wrapper of tfmot."""
    module = sys.modules.get(_MODULE)
    return module is not None and isinstance(layer, module.PruneLowMagnitude)


def inside(layer):
    """Returns the layer within a wrapper; any other layer as it is."""
    return layer.layer if is_wrapper(layer) else layer


def within(model):
    """Returns the wrappers of a model at any depth, a list of layers."""
    return [layer for layer in model._flatten_layers() if is_wrapper(layer)]


def own_variables(wrappers):
    """The variables that wrappers have added: masks, thresholds, steps."""
    return [v for w in wrappers for v in w._non_trainable_weights]


def masks(wrappers):
    """The masks of wrappers, an `IdentityDict` of weight to variable."""
    return identity.IdentityDict(
        (weight, mask)
        for wrapper in wrappers
        for weight, mask, _ in wrapper.pruning_vars
    )


def name_apart(wrappers):
    """Gives the masks and thresholds of one wrapper different names.

    tfmot gives all the same, and HDF5 files need them to differ.
    """
    for wrapper in wrappers:
        for number, (_, *added) in enumerate(wrapper.pruning_vars[1:], 1):
            for variable in added:
                variable = getattr(variable, "_variable", variable)
                name = variable.name.partition(":")[0]
                if not name.endswith(f"_{number}"):
                    variable._handle_name = f"{name}_{number}:0"


def is_quantized(model):
    """Whether a model was made for training with tfmot's quantization."""
    return any(
        type(layer).__module__.startswith(f"{_CORE}.quantization")
        for layer in model._flatten_layers()
    )
