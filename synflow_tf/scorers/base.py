"""The contract of a pruning criterion, also of one that needs data."""

import abc
import typing

from synflow_tf import findings


class Flow(typing.NamedTuple):
    """The flow of a model, beyond the range of any float.

    Attributes:
        log10: float64 tensor of shape (), log10 of the flow R.
        exponent: float64 tensor of shape (): true score = score that comes
            with it * 2**exponent.
    """

    log10: typing.Any
    exponent: typing.Any


class Scorer(abc.ABC):
    """The base class of the criteria, which say what each weight is worth.

    A criterion is bound to a model once per call. That gives a function of
    tensors, which is traced once and then run in every round.

    Args:
        data: the data of a criterion that needs some, else None: whatever its
            `bind` takes, such as a `tf.data.Dataset`.

    Attributes:
        dtype: str, "float64" or "float32": what scores are computed in.
        needs_data: bool, False unless a class says otherwise. Without its data
            such a criterion is an error when it is used.

    >>> import tensorflow as tf
    >>> class Random(synflow_tf.scorers.Scorer):
    ...     def bind(self, model, weights, graph):
    ...         def score(tensors, round):
    ...             seeds = [(index, round) for index in range(len(tensors))]
    ...             return [
    ...                 tf.random.stateless_normal(w.shape, seed, dtype=w.dtype)
    ...                 for w, seed in zip(tensors, seeds)
    ...             ], None
    ...         return score
    >>> model = synflow_tf.models.fc((8, 8, 1))
    >>> synflow_tf.compute_masks(model, 0.5, rounds=2, scorer=Random()).kept
    23700
    """

    dtype = "float64"
    needs_data = False
    data = None

    def __init__(self, data=None):
        self.data = data

    def prepare(self, weight):
        """Computes what of the weights the criterion depends on, once per call.

        Args:
            weight: tensor of `dtype`, values of weights.

        Returns:
            Tensor of the same shape and dtype, computed entry by entry, that is
            0 where the value is: removed weights are zeros.
        """
        return weight

    @abc.abstractmethod
    def bind(self, model, weights, graph):
        """Prepares to score the weights of a model.

        Args:
            model: the Keras model, to be left as it is.
            weights: list of `synflow_tf.Weight`, those to score.
            graph: `graph.Graph`, the operations of the model.

        Returns:
            A pure function `(tensors, round)`, or a `Bound`. `tensors` are what
            `prepare` gave for each weight, 0 where it is removed; `round` is an
            int64 tensor of shape (), from 1. It returns a pair: the scores, a
            list of tensors of the same shapes and dtype, any finite numbers, of
            which the lowest are removed; and the `Flow`, or None if the
            criterion knows no flow.
        """


class Bound:
    """A criterion bound to a model. `SynFlow` also checks and explains.

    Args:
        score: the function that `Scorer.bind` describes.

    Attributes:
        score: the same.
        findings: list of `Finding`, after `check`.
    """

    def __init__(self, score):
        self.score = score
        self.findings = []

    def check(self, tensors):
        """Checks, eagerly, that the scores will mean something.

        Args:
            tensors: list of tensors; see `Scorer.bind`.

        Returns:
            None; or the scores up to a common factor, a list of tensors, of
            which those that are all 0 say that their weight has no score.

        Raises:
            ValueError: if they will not; it names the layer.
        """
        del tensors
        return None

    def why_unscored(self, weight):
        """Returns a sentence: why a `Weight` has no score."""
        return f"{weight.path!r} scores 0 in every entry."

    def explain(self, empty, tensors):
        """Lists a `Finding` for each weight of which nothing is left.

        Args:
            empty: list of `Weight` all of whose entries are removed.
            tensors: list of tensors; see `Scorer.bind`.
        """
        del tensors
        return [findings.Finding("empty", w.path, "empty") for w in empty]

    def refresh(self):
        """Reads the weights that are not scored anew, after training.

        Called once before scores are traced, if they are to see it.
        """
