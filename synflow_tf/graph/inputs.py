"""Finds what a model is called on, as far as Keras knows and its user says."""

import dataclasses
import inspect
import typing

import tensorflow as tf

from synflow_tf.graph import keras_private

_REMEDY = (
    "Say `inputs=`: an example batch, or `tf.TensorSpec`s, in the structure "
    "that the model takes"
)

_NOT_DENSE = (
    tf.RaggedTensor,
    tf.RaggedTensorSpec,
    tf.SparseTensor,
    tf.SparseTensorSpec,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Input:
    """One tensor that a model is called on.

    Attributes:
        shape: tuple of int or None, batch dimension first.
        dtype: `tf.DType`.
        name: str.
        value: the tensor of an example batch, or None.
    """

    shape: tuple
    dtype: tf.DType
    name: str = ""
    value: typing.Any = None

    @property
    def spec(self):
        """Returns it as a `tf.TensorSpec`."""
        return tf.TensorSpec(self.shape, self.dtype)

    def constant(self):
        """Returns the example's value, or ones, for an input of no floats."""
        if self.value is not None:
            return self.value
        full = tf.zeros if self.dtype == tf.string else tf.ones
        return full(self.shape, self.dtype)


def signatures(model, line, inputs):
    """Lists what to call a model on, of which the first that works is meant.

    As pairs of args and kwargs with an `Input` for each tensor: first for one
    example, then for as many as `inputs` has; see `graph.read` for that. Raises
    ValueError if they are not known, a size is open, or `inputs` does not fit.
    """
    known = _known(model, line)
    if inputs is None:
        if known is None:
            raise ValueError(
                "Argument `model` must have known inputs. Received: "
                f"model={model.name!r} (of type {type(model).__name__}), "
                f"which was never called. {_REMEDY}, or call it on a batch."
            )
        found = [_of_batch(known, 1)]
    else:
        given = _given(model, line, inputs, known)
        found = [given]
        sizes = {x.shape[0] for x in flat(given) if x.shape}
        if sizes != {1} and (len(sizes) == 1 or None in sizes):
            found.insert(0, _of_batch(given, 1, everywhere=True))
            if None in sizes:
                found = found[:1]
    for x in flat(found[0]):
        if None in x.shape:
            raise ValueError(
                "Argument `model` leaves a size of its input open. Received: "
                f"model={model.name!r} with an input of shape {x.shape}. "
                f"{_REMEDY}, such as `inputs=tf.TensorSpec((1, ...))` with "
                "the sizes that it will be trained on."
            )
    return found


def flat(signature):
    """Lists each `Input` of a signature."""
    return [x for x in tf.nest.flatten(signature) if isinstance(x, Input)]


def filled(signature, tensors):
    """Puts a tensor in the place of each `Input` of a signature."""
    waiting = iter(tensors)
    return tf.nest.map_structure(
        lambda x: next(waiting) if isinstance(x, Input) else x, signature
    )


def _of_batch(signature, batch, everywhere=False):
    """Sets the batch size of a signature, where it is open or everywhere."""

    def sized(x):
        if not isinstance(x, Input) or not x.shape:
            return x
        if x.shape[0] is not None and not everywhere:
            return x
        value = x.value if x.value is None else x.value[:batch]
        shape = (batch, *x.shape[1:])
        return dataclasses.replace(x, shape=shape, value=value)

    return tf.nest.map_structure(sized, signature)


def _known(model, line):
    """Returns the signature of a model as Keras knows it, or None."""
    functional = keras_private.functional_in(model)
    if functional is not None:
        return (tf.nest.map_structure(_of_tensor, functional.input),), {}
    args, kwargs = keras_private.called_on(model, line)
    if not args and not kwargs:
        return None
    dtype = tf.as_dtype(line.backend.floatx())
    return tuple(_of_shape(x, dtype) for x in args), _of_shape(kwargs, dtype)


def _of_tensor(x):
    """Returns an `Input` like a symbolic tensor or a spec."""
    return Input(tuple(x.shape), tf.as_dtype(x.dtype), x.name or "")


def _of_shape(shape, dtype):
    """Returns an `Input`, or several, for what a model was built with."""
    if isinstance(shape, tf.TensorSpec):
        return Input((None, *shape.shape[1:]), shape.dtype, shape.name or "")
    if isinstance(shape, dict):
        return {k: _of_shape(s, dtype) for k, s in shape.items()}
    if isinstance(shape, tf.TensorShape):
        shape = tuple(shape)
    if isinstance(shape, (list, tuple)):
        if all(n is None or isinstance(n, int) for n in shape):
            return Input((None, *shape[1:]), dtype)
        return [_of_shape(s, dtype) for s in shape]
    return shape


def _given(model, line, inputs, known):
    """Returns the signature that `inputs=` says."""
    made = tf.nest.map_structure(lambda x: _of_example(x, line, inputs), inputs)
    if keras_private.functional_in(model) is not None:
        return _checked(made, known)
    parameters = inspect.signature(model.call).parameters
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if isinstance(made, dict) and set(names) <= set(made) <= set(parameters):
        return (), made
    if len(names) > 1 and isinstance(made, (list, tuple)):
        if len(made) >= len(names):
            return tuple(made), {}
    return (made,), {}


def _of_example(x, line, inputs):
    """Returns an `Input` for one array or spec of `inputs=`."""
    if isinstance(x, _NOT_DENSE):
        raise ValueError(
            "Argument `inputs` must be of dense arrays or `tf.TensorSpec`s. "
            f"Received: a {type(x).__name__}. Write `x.to_tensor()` for a "
            "ragged tensor, or `tf.sparse.to_dense(x)` for a sparse one."
        )
    if isinstance(x, tf.TensorSpec) or keras_private.is_symbolic(x):
        return _of_tensor(x)
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise ValueError(
            "Argument `inputs` must be an example batch (arrays or tensors) or "
            "`tf.TensorSpec`s, in the structure that the model takes. "
            f"Received: inputs={inputs!r}. For a shape write "
            "`inputs=tf.TensorSpec((None, 32, 32, 3))`."
        )
    x = tf.convert_to_tensor(x)
    shape = tuple(x.shape)
    if x.dtype == tf.float64:
        return Input(shape, tf.as_dtype(line.backend.floatx()))
    return Input(shape, x.dtype, value=None if x.dtype.is_floating else x)


def _checked(given, known):
    """Returns what is given as the signature that the model takes."""
    expected, got = flat(known), flat(given)
    pairs = zip(expected, got, strict=False)
    if len(expected) != len(got) or not all(_fits(e, g) for e, g in pairs):
        raise ValueError(
            "Argument `inputs` must have the structure and the shapes that the "
            f"model takes: {[x.shape for x in expected]}. "
            "Received: `inputs=` of shapes "
            f"{tf.nest.map_structure(lambda x: x.shape, given)}"
        )
    # Flat, because a model takes a list where its inputs are a dict.
    typed = [_typed(e, g) for e, g in zip(expected, got, strict=True)]
    return tf.nest.pack_sequence_as(known, typed)


def _fits(known, given):
    shapes = tf.TensorShape(known.shape), tf.TensorShape(given.shape)
    ranks = {len(shape) for shape in shapes}
    return len(ranks) == 1 and shapes[0][1:].is_compatible_with(shapes[1][1:])


def _typed(known, given):
    """Returns the given `Input` with the dtype and the sizes that are known."""
    sizes = zip(known.shape, given.shape, strict=True)
    shape = tuple(n if m is None else m for m, n in sizes)
    value = given.value
    if value is not None and value.dtype != known.dtype:
        is_float = known.dtype.is_floating
        value = None if is_float else tf.cast(value, known.dtype)
    return Input(shape, known.dtype, known.name, value)
