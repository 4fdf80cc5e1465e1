"""SynFlow for Keras: prune a model before training, without data.

    import synflow_tf
    masks = synflow_tf.prune(model, sparsity=0.99)
    model.fit(...)

See https://arxiv.org/abs/2006.05467 and README.md.
"""

from synflow_tf import datasets as datasets
from synflow_tf import models as models
from synflow_tf import schedules as schedules
from synflow_tf import scorers as scorers
from synflow_tf.callbacks import SynFlowPruning as SynFlowPruning
from synflow_tf.export import TFLiteReport as TFLiteReport
from synflow_tf.export import export_tflite as export_tflite
from synflow_tf.findings import Finding as Finding
from synflow_tf.graph.variables import Weight as Weight
from synflow_tf.linearize import register_rule as register_rule
from synflow_tf.masks import Masks as Masks
from synflow_tf.masks import Round as Round
from synflow_tf.pruning import compute_masks as compute_masks
from synflow_tf.pruning import prune as prune
from synflow_tf.scoring import Scores as Scores
from synflow_tf.scoring import score as score

__all__ = [
    "Finding",
    "Masks",
    "Round",
    "Scores",
    "SynFlowPruning",
    "TFLiteReport",
    "Weight",
    "compute_masks",
    "datasets",
    "export_tflite",
    "models",
    "prune",
    "register_rule",
    "schedules",
    "score",
    "scorers",
]
__version__ = "0.1.0"


def __getattr__(name):
    # Importing tfmot changes what `tf.keras` is: only when it is asked for.
    if name == "tfmot":
        import synflow_tf.tfmot as module

        return module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
