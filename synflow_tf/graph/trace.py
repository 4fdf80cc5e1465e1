"""Traces a model, or a layer, once for inference, and notes whose work it is.

The graph of `tf.function` says completely what a model does. What only Keras
knows, which layer an operation is part of, is noted by the layers' own `call`.
"""

import collections
import contextlib
import dataclasses
import functools
import inspect
import operator
import threading
import typing

import tensorflow as tf

from synflow_tf.graph import identity
from synflow_tf.graph import inputs as inputs_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines
from synflow_tf.graph import values
from synflow_tf.graph import variables

# Layers note their operations on themselves: one trace at a time.
_LOCK = threading.RLock()


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, on tensors of a traced graph.

    Attributes:
        layer: the layer.
        graph: the `FuncGraph`.
        begin: int, the position of its first operation.
        end: int, the position behind its last one.
        args: tuple, what it was called on.
        kwargs: dict, likewise.
        outputs: what it returned.
    """

    layer: typing.Any
    graph: typing.Any
    begin: int
    end: int
    args: tuple
    kwargs: dict
    outputs: typing.Any


def trace(layer, line, signature):
    """Traces a layer or model, and leaves it as it was.

    Args:
        layer: a built layer or model.
        line: its Keras line.
        signature: pair of args and kwargs, with an `inputs.Input` for each
            tensor.

    Returns:
        A `FuncGraph`, whose first inputs are those of the signature, flat, and
        a list of `Call`, of the layers within.

    Raises:
        lines.NotBuilt: if the layer makes weights when it is called.
        Exception: whatever its `call` raises.
    """

    def apply(*tensors):
        args, kwargs = inputs_lib.filled(signature, tensors)
        if "training" in inspect.signature(layer.call).parameters:
            kwargs["training"] = False
        with _one_replica(layer):
            return layer(*args, **kwargs)

    # As `fit` of each line traces: tf_keras converts a layer's `if` and `for`.
    function = tf.function(apply, autograph=line is lines.LINES[1])
    specs = [x.spec for x in inputs_lib.flat(signature)]
    calls = []
    with _LOCK, _left_as_it_was(layer, line):
        for one in keras_private.layers_within(layer):
            vars(one)["call"] = _noting(one, calls)
        weights = len(layer.weights)
        try:
            with tf.init_scope():
                graph = function.get_concrete_function(*specs).graph
        finally:  # Weights made in a trace are no weights: that comes first.
            if len(layer.weights) > weights:
                raise lines.NotBuilt(layer)
    return graph, calls


def _one_replica(layer):
    """Makes the context in which one replica reads variables by itself.

    What several workers reduce together cannot be traced by one.
    """
    for variable in layer.weights:
        strategy = variables.strategy_of(variable)
        if strategy is not None:
            return tf.distribute.ReplicaContext(strategy, 0)
    return contextlib.nullcontext()


def _noting(layer, calls):
    """Returns the `call` of a layer, which also adds a `Call` to a list."""
    original = layer.call

    @functools.wraps(original)
    def call(*args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        begin = len(graph.get_operations())
        outputs = original(*args, **kwargs)
        given = identity.IdentitySet(values.traced_in((args, kwargs)))
        outputs = tf.nest.map_structure(
            # What it returns is its own, also where it does nothing.
            lambda x: tf.identity(x) if x in given else x,
            outputs,
        )
        end = len(graph.get_operations())
        calls.append(Call(layer, graph, begin, end, args, kwargs, outputs))
        return outputs

    return call


@contextlib.contextmanager
def _left_as_it_was(layer, line):
    """Undoes what tracing notes on layers: losses, attributes, made-up names.

    And `call`s that note, and weights that a layer makes when it is called.
    """
    before = identity.IdentityDict()
    for one in [layer, *keras_private.layers_within(layer)]:
        _note(vars(one), before)
    for register in keras_private.registers(layer, line):
        _note(register, before)
    try:
        yield
    finally:
        for held, contents in before.items():
            if _differs(held, contents):
                _refill(held, contents)


def _note(held, before):
    """Notes what a container holds, and containers in it."""
    if not isinstance(held, (list, dict, set, tuple)):
        return
    # Of tf_keras. To ask a replicated variable for it would be an all-reduce.
    held = getattr(held, "__wrapped__", held)
    if held in before:
        return
    if not isinstance(held, tuple):
        before[held] = _contents(held)
    inner = held.values() if isinstance(held, dict) else held
    for one in [*inner, *getattr(held, "__dict__", {}).values()]:
        _note(one, before)


def _contents(held):
    return dict(held) if isinstance(held, dict) else list(held)


def _differs(held, contents):
    now = _contents(held)
    if isinstance(held, dict) and list(now) == list(contents):
        now, contents = now.values(), contents.values()
    return len(now) != len(contents) or any(map(operator.is_not, now, contents))


def _refill(held, contents):
    """Puts contents back, without what Keras' own containers do besides."""
    bases = (collections.OrderedDict, dict, list, set)
    base = next(base for base in bases if isinstance(held, base))
    if isinstance(held, dict):  # Never empty: a layer may be in use elsewhere.
        for key in set(held) - set(contents):
            base.pop(held, key)
        base.update(held, contents)
    else:
        base.clear(held)
        add = base.extend if base is list else base.update
        add(held, contents)
