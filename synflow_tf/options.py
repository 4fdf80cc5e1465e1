"""Holds and validates the arguments that all ways of pruning share."""

import dataclasses
import fractions
import typing

from synflow_tf import _validation
from synflow_tf import schedules
from synflow_tf import scorers
from synflow_tf.rounds import constraints


@dataclasses.dataclass(frozen=True, eq=False)
class Options:
    """The arguments of `synflow_tf.prune`, which documents them, validated.

    Of the callback and of `prune_synflow` too: `pruning_schedule`, a schedule
    over training steps, and `masks` stand in the place of an amount to prune
    before training.

    Attributes:
        densities: list of `rounds` numbers, or of None for a round that does
            not prune; see `schedules.densities`. Empty without an amount.

    Raises:
        TypeError: if an argument is not of its type.
        ValueError: if an argument is out of its range.
    """

    sparsity: typing.Any = None
    compression: typing.Any = None
    schedule: typing.Any = None
    keep_n_of_m: typing.Any = None
    rounds: int = 100
    scorer: typing.Any = None
    scope: str = "global"
    min_kept: int = 0
    prunable: typing.Any = None
    inputs: typing.Any = None
    on_unscored: str = "error"
    progress: bool = True
    pruning_schedule: typing.Any = None
    masks: typing.Any = None
    densities: list = dataclasses.field(init=False)

    @classmethod
    def of(cls, arguments):
        """Returns the options among the arguments of a function, a dict."""
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        given = {n: arguments[n] for n in names if n in arguments}
        amounts = [n for n in _AMOUNTS if n in given]
        _validation.exactly_one({name: given[name] for name in amounts})
        return cls(**given)

    def arguments(self):
        """Returns the keyword arguments that these options were made of."""
        names = [field.name for field in dataclasses.fields(self) if field.init]
        return {name: getattr(self, name) for name in names}

    def __post_init__(self):
        _validation.integer("rounds", self.rounds, 1)
        _validation.choice("scope", self.scope, ("global", "local"))
        choices = ("error", "keep")
        _validation.choice("on_unscored", self.on_unscored, choices)
        constraints.check(self.keep_n_of_m, self.min_kept)
        for name in ("schedule", "pruning_schedule"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(
                    f"Argument `{name}` must be a schedule of "
                    "`synflow_tf.schedules` or of tfmot. "
                    f"Received: {name}={value!r}"
                )
        scorer = scorers.SynFlow() if self.scorer is None else self.scorer
        _check_scorer(scorer)
        object.__setattr__(self, "scorer", scorer)
        object.__setattr__(self, "densities", self._densities())

    def _densities(self):
        if self.schedule is not None:
            return schedules.densities(self.schedule, self.rounds)
        if self.keep_n_of_m is not None:
            n, m = self.keep_n_of_m
            return self.densities_to(fractions.Fraction(n, m))
        if self.sparsity is None and self.compression is None:
            return []
        density = _validation.density(self.sparsity, self.compression)
        return self.densities_to(density)

    def densities_to(self, density):
        """Lists the densities after each round, exponentially down to one."""
        schedule = schedules.ExponentialSparsity(1 - density, 0, self.rounds, 1)
        return schedules.densities(schedule, self.rounds)


_AMOUNTS = (
    "sparsity",
    "compression",
    "schedule",
    "keep_n_of_m",
    "pruning_schedule",
    "masks",
)


def _check_scorer(scorer):
    if not isinstance(scorer, scorers.Scorer):
        raise TypeError(
            "Argument `scorer` must be a `synflow_tf.scorers.Scorer`, such "
            f"as `scorers.SynFlow()`. Received: scorer={scorer!r}"
        )
    _validation.choice("scorer.dtype", scorer.dtype, ("float64", "float32"))
    if scorer.needs_data and scorer.data is None:
        raise ValueError(
            "Argument `scorer` must have the data that it needs: "
            f"`{type(scorer).__name__}(data)`. Received: scorer={scorer!r}"
        )
