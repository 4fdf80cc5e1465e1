"""Removed weights are 0 at each moment, in each way that Keras trains.

Each optimizer in each mode of training, masks enforced before and after
`compile`, in both Keras lines: whatever a callback or a checkpoint can see.
"""

import functools
import itertools

import common
import keras
import numpy as np
import pytest
import tf_keras

import synflow_tf

OPTIMIZERS = {
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {"weight_decay": 0.1}),
    "lion": ("Lion", {}),
    "rmsprop": ("RMSprop", {}),
    "ftrl": ("Ftrl", {}),
}
# What differs from the plain mode: arguments of the optimizer, arguments of
# `compile`, and the dtype policy.
MODES = {
    "plain": ({}, {}, None),
    "jit_compile": ({}, {"jit_compile": True}, None),
    "steps_per_execution": ({}, {"steps_per_execution": 4}, None),
    "clipnorm": ({"clipnorm": 0.1}, {}, None),
    "global_clipnorm": ({"global_clipnorm": 0.1}, {}, None),
    "mixed_float16": ({}, {}, "mixed_float16"),
    "mixed_bfloat16": ({}, {}, "mixed_bfloat16"),
    "use_ema": ({"use_ema": True, "ema_momentum": 0.9}, {}, None),
    "gradient_accumulation": ({"gradient_accumulation_steps": 4}, {}, None),
    "run_eagerly": ({}, {"run_eagerly": True}, None),
}


def _model(line, policy=None):
    """A model with an embedding, a convolution and a dense layer."""
    line.utils.set_random_seed(0)
    before = line.mixed_precision.global_policy()
    line.mixed_precision.set_global_policy(policy or "float32")
    try:
        inputs = line.Input((6,), dtype="int32")
        x = line.layers.Embedding(20, 8, name="table")(inputs)
        x = line.layers.Conv1D(8, 3, activation="relu", name="conv")(x)
        x = line.layers.GlobalAveragePooling1D(name="pool")(x)
        outputs = line.layers.Dense(4, dtype="float32", name="logits")(x)
        return line.Model(inputs, outputs)
    finally:
        line.mixed_precision.set_global_policy(before)


@functools.cache
def _masks(line):
    prunable = [line.layers.Embedding, "conv", "logits"]
    return synflow_tf.compute_masks(
        _model(line), sparsity=0.8, rounds=5, prunable=prunable
    )


def _compile(line, model, optimizer, mode):
    name, arguments = OPTIMIZERS[optimizer]
    more, options, _ = MODES[mode]
    model.compile(
        getattr(line.optimizers, name)(0.01, **arguments, **more),
        line.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )


def _fit(model, *callbacks):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 20, (32, 6)), rng.integers(0, 4, 32)
    common.fit(model, x, y, *callbacks, epochs=2, validation_data=(x, y))


def _watch(line, check):
    """A callback that calls `check` at each of its hooks."""

    class Watch(line.callbacks.Callback):
        pass

    def hook(*args, **kwargs):
        check()

    for kind in ("train", "test"):
        for hooked in (f"{kind}_begin", f"{kind}_end"):
            setattr(Watch, f"on_{hooked}", hook)
        for end in ("begin", "end"):
            setattr(Watch, f"on_{kind}_batch_{end}", hook)
    Watch.on_epoch_begin = Watch.on_epoch_end = hook
    return Watch()


def _cases():
    """All combinations; for time, most are marked slow.

    `make test` takes every seventh pair of an optimizer and a mode, and so each
    of them; and by turns a line and an order.
    """
    pairs = list(itertools.product(OPTIMIZERS, MODES))
    turns = [(keras, True), (keras, False), (tf_keras, False), (tf_keras, True)]
    quick = set(zip(pairs[::7], itertools.cycle(turns), strict=False))
    for pair, turn in itertools.product(pairs, turns):
        marks = () if (pair, turn) in quick else pytest.mark.slow
        yield pytest.param(*pair, *turn, marks=marks)


@pytest.mark.parametrize(
    "optimizer, mode, line, compiled_first", list(_cases())
)
def test_removed_weights_are_0_whatever_looks(
    line, optimizer, mode, compiled_first, tmp_path
):
    if line is tf_keras and mode == "gradient_accumulation":
        with pytest.raises(TypeError, match="not a valid argument"):
            _compile(line, _model(line), optimizer, mode)
        return
    masks = _masks(line)
    model = _model(line, MODES[mode][2])
    if compiled_first:
        _compile(line, model, optimizer, mode)
    masks.enforce(model)
    if not compiled_first:
        _compile(line, model, optimizer, mode)
    before = common.values(model)
    seen = []
    checkpoints = line.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}-{batch}.weights.h5"),
        save_weights_only=True,
        save_freq=3,
    )
    watch = _watch(line, lambda: seen.append(common.revived(model, masks)))
    _fit(model, watch, checkpoints)
    assert len(seen) > 20 and not any(seen)
    assert common.revived(model, masks) == 0
    after = common.values(model)
    assert all(np.any(before[path] != after[path]) for path in masks)
    files = list(tmp_path.glob("*.h5"))
    assert len(files) >= 4
    for file in files:
        restored = _model(line, MODES[mode][2])
        restored.load_weights(file)
        assert common.revived(restored, masks) == 0
