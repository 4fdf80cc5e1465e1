"""Lists of tensors, which loops carry along, as lists in Python."""

import tensorflow as tf

from synflow_tf.graph import values as values_lib
from synflow_tf.graph.values import CONSTANT
from synflow_tf.graph.values import FLOW
from synflow_tf.graph.values import INDEX
from synflow_tf.graph.values import WEIGHT


def handles(operation):
    """Whether an operation is one of lists."""
    return operation.type.startswith(("TensorList", "EmptyTensorList"))


def outputs(flattener, operation, inputs):
    """What an operation of lists returns.

    Args:
        flattener: `flatten.Flattener`.
        operation: `tf.Operation`.
        inputs: list of `values.Value`; the constant of a list is a list of
            values, or None for those that are not set yet.

    Returns:
        list of `values.Value`.
    """
    kind = operation.type.removeprefix("TensorList").removesuffix("V2")
    if kind == "EmptyTensorList":
        return [_list([])]
    if kind == "Reserve":
        return [_list([None] * int(inputs[1].constant))]
    if kind in ("FromTensor", "Split"):
        if kind == "FromTensor":
            pieces = [_item(flattener, inputs[0], i) for i in _range(inputs[0])]
        else:
            pieces = _split(flattener, inputs[0], inputs[2].constant.numpy())
        return [_list(pieces)]
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
        return [values_lib.known(len(items))]
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
            values_lib.known(tf.constant(sizes, tf.int64)),
        ]
    raise ValueError("no such operation of lists is known")


def _list(items):
    return values_lib.Value(CONSTANT, (), tf.variant, items)


def _range(value):
    return range(value.shape[0])


def _filled(items):
    """Zeros where nothing was set."""
    known = next(x for x in items if x is not None)
    empty = values_lib.known(tf.zeros(known.shape, known.dtype))
    return [empty if x is None else x for x in items]


def _item(flattener, value, index, count=None):
    """One row of a tensor, or `count` of them as one."""
    rows = slice(index, None if count is None else index + count)
    rows = index if count is None else rows
    if value.constant is not None:
        item = values_lib.known(value.constant[rows], value.kind)
        item.random = value.random
        return item
    shape = value.shape[1:]
    if count is not None:
        shape = (count, *shape)
    if value.kind == INDEX:
        return values_lib.Value(INDEX, shape, value.dtype)
    [item] = flattener.synthetic(
        "_Rows", [value], value, value.kind, shape, rows=rows
    )
    return item


def _split(flattener, value, sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        _item(flattener, value, int(start), int(size))
        for start, size in zip(starts, sizes, strict=True)
    ]


def _stacked(flattener, items, kind="_Stack"):
    """Items as one tensor."""
    function = tf.stack if kind == "_Stack" else tf.concat
    kinds = {x.kind for x in items}
    if all(x.constant is not None for x in items):
        tensor = function([x.constant for x in items], 0)
        value = values_lib.known(tensor, INDEX if INDEX in kinds else CONSTANT)
        value.random = any(x.random for x in items)
        return value
    shape = (len(items), *items[0].shape)
    if kind == "_Concat":
        rows = sum(x.shape[0] for x in items)
        shape = (rows, *items[0].shape[1:])
    output = next(k for k in (FLOW, WEIGHT, INDEX) if k in kinds)
    if output == INDEX:
        return values_lib.Value(INDEX, shape, items[0].dtype)
    like = next(x for x in items if x.kind == output)
    [value] = flattener.synthetic(kind, items, like, output, shape)
    return value
