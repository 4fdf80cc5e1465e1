"""What a model is called on, as far as Keras knows and its user says.

Part of the room that knows Keras internals.
"""

import dataclasses
import inspect

import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import calls


def signature(model, line, input_shape):
    """What a model is called on.

    Args:
        model: a built model.
        line: its Keras line.
        input_shape: see `graph.read`.

    Returns:
        args, a tuple, and kwargs, a dict, with a `Slot` for each tensor.

    Raises:
        ValueError: see `graph.read`.
    """
    functional = calls.as_functional(model)
    if functional is not None:
        names = {id(x): x.name for x in functional.inputs}
        args = (
            tf.nest.map_structure(
                lambda x: calls.slot_of(x, names[id(x)]), functional.input
            ),
        )
        kwargs = {}
    else:
        args, kwargs = _called_on(model, line)
    slots = tf.nest.flatten((args, kwargs))
    several = functional is None and input_shape and _required(model)
    if several and len(slots) < several == len(_sizes(input_shape)):
        slots = []  # Keras remembers the first of several arguments only.
    if not slots and input_shape is None:
        raise ValueError(
            "Argument `model` must have known inputs. Received: "
            f"model={model.name!r} (of type {type(model).__name__}), which "
            "was never called. Call it on a batch, or say `input_shape=`."
        )
    if not slots:
        sizes = _sizes(input_shape)
        args = [
            calls.Slot((None, *(None for _ in s)), _floatx(line)) for s in sizes
        ]
        args = tuple(args) if len(args) == several else (args,)
        kwargs = {}
        slots = tf.nest.flatten(args)
    shapes = iter(_filled_in([slot.shape[1:] for slot in slots], input_shape))

    def with_size(slot):
        return dataclasses.replace(slot, shape=(slot.shape[0], *next(shapes)))

    return tf.nest.map_structure(with_size, (args, kwargs))


def _required(model):
    """How many arguments a model's `call` must have."""
    return sum(
        parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        for parameter in inspect.signature(model.call).parameters.values()
    )


def _called_on(model, line):
    """What a subclassed model was built with, as far as Keras knows it."""
    if line is _lines.LINES[0]:
        shapes = getattr(model, "_build_shapes_dict", None) or {}
        slots = {
            key.removesuffix("_shape"): _slots(shape, _floatx(line))
            for key, shape in shapes.items()
        }
        if len(slots) == 1:
            return tuple(slots.values()), {}
        return (), slots
    spec = model.save_spec()
    if spec is not None:
        return tf.nest.map_structure(
            lambda x: calls.Slot(
                (None, *x.shape[1:]), x.dtype.name, x.name or ""
            ),
            spec,
        )
    shape = getattr(model, "_build_input_shape", None)
    return (() if shape is None else (_slots(shape, _floatx(line)),)), {}


def _slots(shape, dtype):
    """A slot for a shape, or a structure of slots for one of shapes."""
    if isinstance(shape, dict):
        return {key: _slots(s, dtype) for key, s in shape.items()}
    if isinstance(shape, tf.TensorShape):
        shape = tuple(shape)
    if all(n is None or isinstance(n, int) for n in shape):
        return calls.Slot((None, *shape[1:]), dtype)
    return [_slots(s, dtype) for s in shape]


def _floatx(line):
    return line.backend.floatx()


def _sizes(input_shape):
    """`input_shape` as a list of shapes."""
    several = all(isinstance(s, (list, tuple)) for s in input_shape)
    return [tuple(s) for s in (input_shape if several else [input_shape])]


def _filled_in(known, input_shape):
    """Shapes without batch, their open sizes taken from `input_shape`."""
    shapes = known if input_shape is None else _sizes(input_shape)
    fits = len(shapes) == len(known) and all(
        len(shape) == len(model_shape)
        and all(
            isinstance(n, int) and n > 0 and m in (None, n)
            for n, m in zip(shape, model_shape, strict=True)
        )
        for shape, model_shape in zip(shapes, known, strict=True)
    )
    if not fits:
        raise ValueError(
            "Argument `input_shape` must give the size of the input, without "
            "the batch dimension, where the model leaves it open: "
            f"{known}. "
            f"Received: input_shape={input_shape!r}"
        )
    return shapes
