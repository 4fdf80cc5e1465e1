"""Pruning criteria: one class for each, which says what a weight is worth."""

from synflow_tf.scorers.base import Bound as Bound
from synflow_tf.scorers.base import Flow as Flow
from synflow_tf.scorers.base import Scorer as Scorer
from synflow_tf.scorers.synflow import SynFlow as SynFlow

__all__ = ["Bound", "Flow", "Scorer", "SynFlow"]
