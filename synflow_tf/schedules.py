r"""How sparse the model is at which step.

Exponential schedule (Tanaka et al. 2020, section 6, `rounds` = n there):

    density(t) = rho ** (-t / n)

with rho the compression asked for, so that density(n) = 1 / rho; the linear
one goes along a straight line. A schedule is called like one of
tensorflow-model-optimization (tfmot): `schedule(step) -> (should_prune,
sparsity)`, so either kind can be used where the other is.
"""

import abc
import sys

import numpy as np
import tensorflow as tf

from synflow_tf import _validation
from synflow_tf.graph import lines

_TFMOT = (
    "tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule"
)


class Schedule(abc.ABC):
    """Sparsity as a function of the step: base class of the schedules.

    A subclass implements `density`. It follows tfmot's `PruningSchedule`
    contract, and `isinstance(schedule, PruningSchedule)` is true once tfmot
    has been imported; this library does not import it.

    Args:
        final_sparsity: number in [0, 1), the fraction removed at `end_step`.
        begin_step: int >= 0, the last step at which nothing is removed, if
            `end_step` is later.
        end_step: int >= `begin_step`, the step that reaches `final_sparsity`;
            at once if it is `begin_step`.
        frequency: int >= 1; the schedule asks for pruning at `begin_step`
            and every `frequency` steps from there.

    Raises:
        ValueError: if an argument is out of its range.
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
        tfmot = sys.modules.get(_TFMOT)
        if tfmot is not None:
            tfmot.PruningSchedule.register(type(self))
        return type(self)

    @abc.abstractmethod
    def _density(self, final, progress):
        """The density after a fraction of the way.

        Args:
            final: float in (0, 1], the density at `end_step`.
            progress: float in [0, 1], or a tensor of such.

        Returns:
            What `progress` is: the fraction kept.
        """

    def density(self, step):
        """The fraction kept after a step, in double precision.

        Args:
            step: int >= 0.

        Returns:
            float in (0, 1]; at `end_step` and later an exact
            `fractions.Fraction`, so that the last count is exact too.
        """
        final = 1 - _validation.decimal(self.final_sparsity)
        if step >= self.end_step:
            return final
        if step <= self.begin_step:
            return 1.0
        progress = (step - self.begin_step) / (self.end_step - self.begin_step)
        return self._density(float(final), progress)

    def should_prune(self, step):
        """Whether the schedule asks for pruning at a step.

        Args:
            step: int, or integer tensor.

        Returns:
            bool, or bool tensor of the shape of `step`.
        """
        since = step - self.begin_step
        turn = since % self.frequency == 0
        return (since >= 0) & (step <= self.end_step) & turn

    def __call__(self, step):
        """Whether to prune at a step, and how sparse to be after it.

        Args:
            step: int, or integer tensor of shape ().

        Returns:
            A pair of tensors of shape (): should_prune, bool, and sparsity,
            float32.
        """
        step = tf.cast(step, tf.int64)
        # Of length 0 it goes from step -1 to 0, so to say.
        length = max(self.end_step - self.begin_step, 1)
        since = tf.clip_by_value(step - self.end_step + length, 0, length)
        final = 1.0 - float(self.final_sparsity)
        density = self._density(final, tf.cast(since, tf.float64) / length)
        return self.should_prune(step), tf.cast(1.0 - density, tf.float32)

    def get_config(self):
        """Returns class and arguments as tfmot's wrapper saves and loads them.

        Returns:
            dict: "class_name", the name that the class is registered under in
            both Keras lines, and "config", the constructor's arguments.
        """
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
        """Returns the schedule whose `get_config` gave `config`.

        Args:
            config: that dict, or only its "config".
        """
        return cls(**config.get("config", config))


@lines.register_serializable
class ExponentialSparsity(Schedule):
    """Density falls by the same factor at every step: the paper's schedule.

        density(t) = d ** ((t - begin_step) / (end_step - begin_step))

    with d = 1 - `final_sparsity`. It is the default of this library: with
    many rounds no step removes more than a small part of what is left, which
    is what keeps layers from collapsing (Tanaka et al. 2020, theorem 3).

    >>> schedule = ExponentialSparsity(0.99, begin_step=0, end_step=100,
    ...                                frequency=1)
    >>> schedule.density(50)
    0.1
    """

    def _density(self, final, progress):
        return final**progress


@lines.register_serializable
class LinearSparsity(Schedule):
    """Sparsity rises by the same amount at every step.

        density(t) = 1 - (1 - d) (t - begin_step) / (end_step - begin_step)

    with d = 1 - `final_sparsity`. Its last steps remove a large part of what
    is left: the paper shows where that collapses layers (figure 7).

    >>> schedule = LinearSparsity(0.9, begin_step=0, end_step=10, frequency=1)
    >>> schedule.density(5)
    0.55
    """

    def _density(self, final, progress):
        return 1.0 - (1.0 - final) * progress


def at(schedule, step):
    """What a schedule says at a step.

    Args:
        schedule: a `Schedule`, or any callable with tfmot's contract `step ->
            (should_prune, sparsity)`.
        step: int >= 0.

    Returns:
        A pair: bool, whether it prunes at this step; and the density it has
        come to, a number in (0, 1], exact where the schedule is.

    Raises:
        ValueError: if it gives a sparsity outside [0, 1).
    """
    if isinstance(schedule, Schedule):
        return bool(schedule.should_prune(step)), schedule.density(step)
    prunes, sparsity = (np.asarray(x) for x in schedule(tf.constant(step)))
    # The shortest decimal of a float32 is what its author wrote.
    density = 1 - _validation.decimal(sparsity)
    if not 0 < density <= 1:
        raise ValueError(
            "Argument `schedule` must give sparsities in [0, 1). Received: "
            f"schedule={schedule!r}, which gives {sparsity} at step {step}"
        )
    return bool(prunes), density


def densities(schedule, rounds):
    """The density after each round of iterative pruning.

    Args:
        schedule: a `Schedule`, or any callable with tfmot's contract `step ->
            (should_prune, sparsity)`; round t is its step t.
        rounds: int >= 1.

    Returns:
        list of `rounds` numbers in (0, 1], one for each round, or None for
        a round in which the schedule does not prune.

    Raises:
        ValueError: if the schedule never prunes in these rounds, if it asks
            for a sparsity outside [0, 1), or if its sparsity falls.
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
