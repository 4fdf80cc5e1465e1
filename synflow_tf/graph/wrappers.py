"""Detects the pruning wrappers of tfmot without importing tfmot.

tfmot puts a layer into a `PruneLowMagnitude`, which has masks of its own and
multiplies the layer's weights by them before each call. To this library a
wrapped layer is the layer within, and the wrapper's mask is the mask of its
weight. Where tfmot is not imported there is no wrapper.
"""

from synflow_tf.graph import identity
from synflow_tf.graph import keras_private


def is_wrapper(layer):
    """Tells whether a layer is a pruning wrapper of tfmot."""
    module = "sparsity.keras.pruning_wrapper"
    wrapper = keras_private.of_tfmot(module, "PruneLowMagnitude")
    return wrapper is not None and isinstance(layer, wrapper)


def inside(layer):
    """Returns the layer within a wrapper; any other layer as it is."""
    return layer.layer if is_wrapper(layer) else layer


def within(model):
    """Lists the wrappers of a model at any depth."""
    return list(filter(is_wrapper, keras_private.layers_within(model)))


def masks(wrappers):
    """Returns the masks of wrappers, an `IdentityDict` by weight."""
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
                name = variable.name.partition(":")[0]
                if not name.endswith(f"_{number}"):
                    name = f"{name}_{number}:0"
                    keras_private.set_handle_name(variable, name)


def is_quantized(model):
    """Tells whether a model was made for training with tfmot's quantization."""
    layers = [model, *keras_private.layers_within(model)]
    return any(map(keras_private.is_quantized, layers))
