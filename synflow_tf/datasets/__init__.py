"""Data sets of the examples: `load` one by name, batched and normalized.

Importing this package imports neither tensorflow_datasets nor scikit-learn:
`load` does, when it is called.
"""

from synflow_tf.datasets.pipeline import load as load
from synflow_tf.datasets.specs import SPECS as SPECS
from synflow_tf.datasets.specs import Spec as Spec
from synflow_tf.datasets.specs import spec as spec

__all__ = ["SPECS", "Spec", "load", "spec"]
