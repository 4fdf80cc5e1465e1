"""What Keras does not keep is an error, and leaves the model as it was."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.graph import keras_private

PATCHED = {"compile", "apply", "apply_gradients", "finalize_variable_values"}


def _model(line, optimizer=None):
    """Two layers, trained for a step if there is an optimizer."""
    line.utils.set_random_seed(0)
    constraint = line.constraints.MaxNorm(9.0)
    model = line.Sequential(
        [
            line.Input((4,)),
            line.layers.Dense(4, name="a", kernel_constraint=constraint),
            line.layers.Dense(4, name="b"),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer, "mse", run_eagerly=True)
        model.train_on_batch(*_data())
    return model


def _data():
    return np.random.default_rng(0).normal(size=(2, 8, 4)).astype("float32")


def _masks(seed=0):
    rng = np.random.default_rng(seed)
    return synflow_tf.Masks(
        {f"{name}/kernel": rng.random((4, 4)) < 0.5 for name in "ab"}
    )


def _state(model):
    """All that enforcing may change, to compare with `==`."""
    variables = list(model.weights)
    things = [model]
    if getattr(model, "optimizer", None) is not None:
        variables += list(model.optimizer.variables)
        things.append(model.optimizer)
    values = [tf.convert_to_tensor(v).numpy().tobytes() for v in variables]
    constraints = [id(v.constraint) for v in model.weights]
    patched = [PATCHED & set(vars(thing)) for thing in things]
    return values, constraints, patched


def _assert_refused(model, expected, optimizer=None):
    before, held = _state(model), synflow_tf.Masks.enforced(model)
    with pytest.raises(keras_private.Incompatible, match=f"(?s){expected}"):
        _masks(1).enforce(model, optimizer)
    assert _state(model) == before
    assert synflow_tf.Masks.enforced(model) == held


def _version(line):
    return re.escape(f"{line.__name__} {line.__version__}")


def test_a_constraint_that_one_weight_does_not_keep_is_undone_on_others(
    line, monkeypatch
):
    model = _model(line, line.optimizers.SGD(0.1, momentum=0.9))
    kept, ignoring = (layer.kernel for layer in model.layers)
    cls = type(ignoring)
    real = cls.constraint.fget

    def constraint(self):
        return None if self is ignoring else real(self)

    replaced = property(constraint, cls.constraint.fset)
    monkeypatch.setattr(cls, "constraint", replaced)
    expected = f"^{_version(line)} does not keep the constraint .*kernel"
    _assert_refused(model, expected)
    assert synflow_tf.Masks.enforced(model) is None
    assert isinstance(kept.constraint, line.constraints.MaxNorm)


def test_masks_that_held_before_a_failure_hold_after_it(line):
    model = _model(line, line.optimizers.Adam())
    _masks().enforce(model)
    attributes = vars(model.optimizer)
    attributes["elsewhere"] = {0: attributes.pop("_momentums")}
    expected = f"^{_version(line)} keeps '.*' of Adam in no list: moments of re"
    _assert_refused(model, expected)
    attributes["_momentums"] = attributes.pop("elsewhere")[0]
    model.train_on_batch(*_data())
    assert synflow_tf.Masks.enforced(model) == _masks()
    for path, mask in _masks().items():
        kernel = model.get_layer(path[0]).kernel.numpy()
        np.testing.assert_array_equal(kernel != 0, mask)


@pytest.mark.parametrize(
    "line, kind, name",
    [
        (keras, "Adam", "_trainable_variables_indices"),
        (keras, "Adam", "_variables"),
        (keras, "Ftrl", "_accumulators"),
        (tf_keras, "Adam", "_index_dict"),
        (tf_keras, "Adam", "_variables"),
        (tf_keras, "Adagrad", "_accumulators"),
    ],
)
def test_a_private_name_of_an_optimizer_that_is_gone_is_an_error(
    line, kind, name
):
    optimizer = getattr(line.optimizers, kind)(0.1)
    model = _model(line, optimizer)
    before = _state(model)
    held = vars(optimizer)[name]
    vars(optimizer)["renamed"] = vars(optimizer).pop(name)
    if name == "_variables":  # `variables` is public, whatever it is made of
        cls = type(f"No{kind}", (type(optimizer),), {})
        cls.variables = property(lambda self: self.renamed)
        optimizer.__class__ = cls
    with pytest.raises(
        keras_private.Incompatible,
        match=rf"^{_version(line)} has no `\w*{kind}.{name}`",
    ):
        _masks().enforce(model)
    vars(optimizer)[name] = held
    assert _state(model) == before
    assert synflow_tf.Masks.enforced(model) is None


def test_averages_that_are_not_found_are_an_error_in_training(line):
    optimizer = line.optimizers.SGD(0.1, use_ema=True)
    model = _model(line)
    _masks().enforce(model)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.train_on_batch(*_data())
    name = "_model_variables_moving_average"
    kept = vars(optimizer)[name]
    cls = type(optimizer)
    real = cls.apply if line is keras else cls.apply_gradients

    def without(self, *args, **kwargs):
        vars(self)[name] = kept
        result = real(self, *args, **kwargs)
        del vars(self)[name]
        return result

    other = "apply" if line is keras else "apply_gradients"
    optimizer.__class__ = type("Other", (cls,), {other: without})
    with pytest.raises(keras_private.Incompatible, match=f"no `Other.{name}`"):
        model.train_on_batch(*_data())


def test_a_method_that_is_not_replaced_is_an_error(line):
    name = "apply" if line is keras else "apply_gradients"

    class Fixed(line.optimizers.SGD):
        pass

    real = getattr(line.optimizers.SGD, name)
    # A data descriptor comes before what an object itself has.
    fixed = property(lambda self: real.__get__(self), lambda self, value: None)
    setattr(Fixed, name, fixed)
    expected = f"^{_version(line)} does not let `Fixed.{name}` be replaced"
    _assert_refused(_model(line), expected, Fixed(0.1))
    _assert_refused(_model(line, Fixed(0.1)), expected)


def test_a_method_that_is_gone_is_an_error(line, monkeypatch):
    name = "finalize_variable_values"
    optimizer = line.optimizers.SGD(0.1)
    model = _model(line)
    for cls in type(optimizer).__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)
    _assert_refused(model, f"does not let `SGD.{name}` be replaced", optimizer)
    assert not PATCHED & set(vars(optimizer))


def test_an_optimizer_is_patched_wherever_its_model_keeps_it(line):
    kept = {}

    class Elsewhere(line.Sequential):
        @property
        def optimizer(self):
            return kept.get("optimizer")

        @optimizer.setter
        def optimizer(self, value):
            kept["optimizer"] = value

    model = Elsewhere(_model(line).layers)
    model.build((None, 4))
    model.compile(line.optimizers.SGD(0.1), "mse")
    _masks().enforce(model)
    assert PATCHED & set(vars(kept["optimizer"]))
