"""Data sets of the examples: `load` one by name, batched and normalized.

Only `load` imports tensorflow_datasets and scikit-learn, when it is called.
"""

from synflow_tf.datasets.pipeline import load as load
from synflow_tf.datasets.specs import SPECS as SPECS
from synflow_tf.datasets.specs import Spec as Spec
from synflow_tf.datasets.specs import spec as spec

__all__ = ["SPECS", "Spec", "load", "spec"]
