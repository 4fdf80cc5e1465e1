"""The contract of a pruning criterion."""

import abc
import typing


class Flow(typing.NamedTuple):
    """The flow of a model, beyond the range of any float.

    Attributes:
        log10: float64 tensor of shape (), log10 of the flow R.
        exponent: float64 tensor of shape (): the scores that come with it are
            2 to the power of minus this times what they are.
    """

    log10: typing.Any
    exponent: typing.Any


class Scorer(abc.ABC):
    """What each weight is worth: the base class of the criteria.

    A criterion implements `score`, a pure function of tensors that is traced
    once and then run in every round.

    Attributes:
        dtype: str, "float64" or "float32": what scores are computed in.
    """

    dtype = "float64"

    def prepare(self, weight):
        """What of a weight the criterion depends on; computed once.

        Args:
            weight: tensor, the weight's value, of `dtype`.

        Returns:
            Tensor of the same shape and dtype. It must keep zeros 0: removed
            weights are zeros here.
        """
        return weight

    @abc.abstractmethod
    def score(self, graph, variables, weights, inputs):
        """Scores the prunable weights.

        Args:
            graph: `graph.Graph`, the model.
            variables: list of Keras variables, the prunable ones.
            weights: list of tensors, what `prepare` gave for each of them,
                and 0 where a weight is removed; of `dtype`.
            inputs: list of tensors of ones, one for each input of the model
                that is a float, of `dtype`.

        Returns:
            A pair: list of tensors >= 0 of the shapes of `weights`, the
            scores; and the `Flow`, or None if the criterion knows no flow.
        """

    def inspect(self, graph, variables, weights, inputs):
        """Checks, once and eagerly, that the scores will mean something.

        Args:
            graph: see `score`.
            variables: see `score`.
            weights: see `score`.
            inputs: see `score`.

        Returns:
            None, or a pair: the scores up to a common factor, a list of
            tensors, of which one that is all 0 is an error; and the list of
            variables that are scales of 0 and counted as ones.

        Raises:
            ValueError: if they will not; it names the layer.
        """
        del graph, variables, weights, inputs
        return None
