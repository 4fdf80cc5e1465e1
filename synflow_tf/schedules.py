"""Schedules: the sparsity of a model as a function of the step.

A schedule is called like one of tensorflow-model-optimization (tfmot):
`schedule(step) -> (should_prune, sparsity)`, so that either kind can be used
where the other is. The steps are rounds of pruning, or steps of training.
"""

import abc
import sys

import numpy as np
import tensorflow as tf

from synflow_tf import _validation
from synflow_tf.graph import lines


class Schedule(abc.ABC):
    """Base class of the schedules, whose subclasses implement `_density`.

    It follows tfmot's `PruningSchedule` contract, and `isinstance(schedule,
    PruningSchedule)` is true once tfmot has been imported, which this library
    does not do by itself.

    Args:
        final_sparsity: number in [0, 1), the fraction removed at `end_step`.
        begin_step: int >= 0, the last step at which nothing is removed, if
            `end_step` is later.
        end_step: int >= `begin_step`, the step that reaches `final_sparsity`.
        frequency: int >= 1; the schedule asks for pruning at `begin_step` and
            every `frequency` steps from there.
    """

    def __init__(self, final_sparsity, begin_step, end_step, frequency=100):
        _validation.sparsity("final_sparsity", final_sparsity)
        self.begin_step = _validation.integer("begin_step", begin_step, 0)
        self.end_step = _validation.integer(
            "end_step", end_step, self.begin_step
        )
        self.frequency = _validation.integer("frequency", frequency, 1)
        self.final_sparsity = final_sparsity

    @property
    def __class__(self):
        # `isinstance` asks an object for its class before it looks at the
        # registry of virtual subclasses: the moment to enter ourselves there,
        # whichever of the two libraries was imported first.
        tfmot = sys.modules.get("tensorflow_model_optimization")
        if tfmot is not None:
            tfmot.sparsity.keras.PruningSchedule.register(type(self))
        return type(self)

    @abc.abstractmethod
    def _density(self, final, progress):
        """Returns the density after a fraction of the way, in [0, 1].

        It is a float or tensor as `progress` is; `final` is that at the end.
        """

    def density(self, step):
        """Returns the fraction kept after a step, a float in (0, 1].

        From `end_step` on it is an exact `fractions.Fraction`, so that the
        last count is exact too.
        """
        final = 1 - _validation.decimal(self.final_sparsity)
        if step >= self.end_step:
            return final
        if step <= self.begin_step:
            return 1.0
        progress = (step - self.begin_step) / (self.end_step - self.begin_step)
        # Rounding must not ask for more than the end does.
        return max(final, self._density(float(final), progress))

    def should_prune(self, step):
        """Tells whether to prune at a step, an int or an integer tensor."""
        since = step - self.begin_step
        turn = since % self.frequency == 0
        return (since >= 0) & (step <= self.end_step) & turn

    def __call__(self, step):
        """Returns tfmot's pair for a step: should_prune and sparsity.

        Both are tensors of shape (), of bool and of float32.
        """
        step = tf.cast(step, tf.int64)
        # One of length 0 is one of length 1 that begins a step earlier.
        length = max(self.end_step - self.begin_step, 1)
        since = tf.clip_by_value(step - self.end_step + length, 0, length)
        final = 1.0 - float(self.final_sparsity)
        density = self._density(final, tf.cast(since, tf.float64) / length)
        return self.should_prune(step), tf.cast(1.0 - density, tf.float32)

    def get_config(self):
        """Returns class and arguments, in the form that tfmot saves."""
        return {
            "class_name": lines.registered_name(type(self)),
            "config": {
                "final_sparsity": float(self.final_sparsity),
                "begin_step": self.begin_step,
                "end_step": self.end_step,
                "frequency": self.frequency,
            },
        }

    @classmethod
    def from_config(cls, config):
        """Returns the schedule of a `get_config()`, or of its "config"."""
        return cls(**config.get("config", config))


@lines.register_serializable
class ExponentialSparsity(Schedule):
    """Schedule whose density falls by the same factor at every step.

        density(t) = d ** ((t - begin_step) / (end_step - begin_step))

    with d = 1 - `final_sparsity`. It is the paper's, and the default: with many
    rounds no step removes more than a small part of what is left, which keeps
    layers from collapsing (Tanaka et al. 2020, section 6 and theorem 3).

    >>> ExponentialSparsity(0.99, begin_step=0, end_step=100).density(50)
    0.1
    """

    def _density(self, final, progress):
        return final**progress


@lines.register_serializable
class LinearSparsity(Schedule):
    """Schedule whose sparsity rises by the same amount at every step.

        density(t) = 1 - (1 - d) (t - begin_step) / (end_step - begin_step)

    with d = 1 - `final_sparsity`. Its last steps remove a large part of what
    is left: the paper shows where that collapses layers (figure 7).

    >>> LinearSparsity(0.9, begin_step=0, end_step=10).density(5)
    0.55
    """

    def _density(self, final, progress):
        return 1.0 - (1.0 - final) * progress


def at(schedule, step):
    """Returns whether a schedule prunes at a step, and the density it asks for.

    The density is in (0, 1], and exact where that of the schedule is, which is
    a `Schedule` or any callable with tfmot's contract. Raises ValueError if the
    sparsity is outside [0, 1).
    """
    if isinstance(schedule, Schedule):
        return bool(schedule.should_prune(step)), schedule.density(step)
    found = schedule(tf.constant(step))
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise ValueError(
            "A schedule must give a pair: whether to prune, and the sparsity. "
            f"Received: {schedule!r}, which gives {found!r} at step {step}"
        )
    prunes, sparsity = (np.asarray(x) for x in found)
    # The shortest decimal of a float32 is what its author wrote.
    density = 1 - _validation.decimal(sparsity) if sparsity < 1 else 0
    if not 0 < density <= 1:
        raise ValueError(
            "A schedule must give sparsities in [0, 1). Received: "
            f"{schedule!r}, which gives {sparsity} at step {step}"
        )
    return bool(prunes), density


def densities(schedule, rounds):
    """Returns the density after each of some rounds, of which t is step t.

    It is None for a round in which the schedule does not prune. Raises
    ValueError if it never prunes in these rounds, if it asks for a sparsity
    outside [0, 1), or if its sparsity falls.
    """
    steps = [at(schedule, step) for step in range(1, rounds + 1)]
    result = [density if prunes else None for prunes, density in steps]
    asked = [density for density in result if density is not None]
    if not asked:
        raise ValueError(
            f"Argument `schedule` must prune in one of the steps 1 to {rounds} "
            f"(`rounds`). Received: schedule={schedule!r}, which does not. "
            "Check its begin_step, end_step and frequency."
        )
    if asked != sorted(asked, reverse=True):
        raise ValueError(
            "Argument `schedule` must give sparsities that never fall. "
            f"Received: schedule={schedule!r}, which gives "
            f"{[float(1 - density) for density in asked]}"
        )
    return result
