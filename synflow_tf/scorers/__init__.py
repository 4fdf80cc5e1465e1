"""Pruning criteria: a class and a file for each, and its name here.

A criterion says what a weight is worth, from the model alone or from data that
its constructor takes; see `base`.
"""

from synflow_tf.scorers.base import Bound as Bound
from synflow_tf.scorers.base import Flow as Flow
from synflow_tf.scorers.base import Scorer as Scorer
from synflow_tf.scorers.synflow import SynFlow as SynFlow

__all__ = ["Bound", "Flow", "Scorer", "SynFlow"]
