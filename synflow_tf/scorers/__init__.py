"""What each weight is worth: one class for each criterion."""

from synflow_tf.scorers.base import Flow as Flow
from synflow_tf.scorers.base import Scorer as Scorer
from synflow_tf.scorers.synflow import SynFlow as SynFlow
