"""Reads the lists of tensors that loops carry along, as lists in Python."""

import itertools

import tensorflow as tf

from synflow_tf.graph import values
from synflow_tf.graph.values import CONSTANT
from synflow_tf.graph.values import INDEX


def handles(operation):
    """Returns whether an operation is one of lists."""
    return operation.type.startswith(("TensorList", "EmptyTensorList"))


def outputs(flattener, operation, inputs):
    """Returns the values that an operation of lists returns.

    The constant of a list is a list of `values.Value`, with None for those that
    are not set yet.
    """
    kind = operation.type.removeprefix("TensorList").removesuffix("V2")
    if kind == "EmptyTensorList":
        return [_list([])]
    if kind == "Reserve":
        return [_list([None] * int(inputs[1].constant))]
    if kind == "FromTensor":
        rows = range(inputs[0].shape[0])
        return [_list([_item(flattener, inputs[0], i) for i in rows])]
    if kind == "Split":
        ends = inputs[2].constant.numpy().cumsum().tolist()
        rows = itertools.starmap(slice, zip([0, *ends], ends, strict=False))
        return [_list([_item(flattener, inputs[0], r) for r in rows])]
    if kind == "Scatter":  # tensor, indices, element shape, how many
        indices = inputs[1].constant.numpy().tolist()
        count = int(inputs[3].constant) if inputs[3:] else -1
        items = [None] * max(count, max(indices, default=-1) + 1)
        for i, index in enumerate(indices):
            items[index] = _item(flattener, inputs[0], i)
        return [_list(items)]
    items = inputs[0].constant
    if kind == "SetItem":
        items = list(items)
        items[int(inputs[1].constant)] = inputs[2]
        return [_list(items)]
    if kind == "PushBack":
        return [_list([*items, inputs[1]])]
    if kind == "PopBack":
        return [_list(items[:-1]), items[-1]]
    if kind == "Resize":
        count = int(inputs[1].constant)
        return [_list([*items, *[None] * count][:count])]
    if kind == "Length":
        return [values.known(len(items))]
    if kind == "GetItem":
        return [_filled(items)[int(inputs[1].constant)]]
    if kind == "Gather":
        items = [items[i] for i in inputs[1].constant.numpy()]
        return [_stacked(flattener, _filled(items))]
    if kind == "Stack":
        return [_stacked(flattener, _filled(items))]
    if kind == "Concat":
        sizes = [x.shape[0] for x in items]
        return [
            _stacked(flattener, items, "_Concat"),
            values.known(tf.constant(sizes, tf.int64)),
        ]
    raise ValueError("no such operation of lists is known")


def _list(items):
    return values.Value(CONSTANT, (), tf.variant, items)


def _filled(items):
    """Fills in zeros where nothing was set."""
    known = next(x for x in items if x is not None)
    empty = values.known(tf.zeros(known.shape, known.dtype))
    return [empty if x is None else x for x in items]


def _item(flattener, value, rows):
    """Returns one row of a tensor, by an int; or several as one, by a slice."""
    if value.constant is not None:
        return values.known(value.constant[rows], value.kind, value.random)
    shape = value.shape[1:]
    if isinstance(rows, slice):
        shape = (rows.stop - rows.start, *shape)
    return flattener.synthetic("_Rows", [value], shape, rows=rows)


def _stacked(flattener, items, kind="_Stack"):
    """Returns items as one tensor."""
    function = tf.stack if kind == "_Stack" else tf.concat
    if all(x.constant is not None for x in items):
        known = all(x.kind == CONSTANT for x in items)
        tensor = function([x.constant for x in items], 0)
        kind = CONSTANT if known else INDEX
        return values.known(tensor, kind, any(x.random for x in items))
    shape = (len(items), *items[0].shape)
    if kind == "_Concat":
        rows = sum(x.shape[0] for x in items)
        shape = (rows, *items[0].shape[1:])
    return flattener.synthetic(kind, items, shape)
