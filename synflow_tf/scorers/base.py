"""The contract of a pruning criterion."""

import abc


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
            inputs: list of tensors of ones, one for each input of the model,
                batch size 1, of `dtype`.

        Returns:
            A pair: list of tensors >= 0 of the shapes of `weights`, the
            scores; and a float64 tensor of shape (), log10 of the flow R, or
            None if the criterion knows no flow.
        """
