"""SynFlow inside a pipeline of tensorflow-model-optimization (tfmot).

The one package that imports tfmot, and with it changes what `tf.keras` means in
the whole process (tfmot's doing); `import synflow_tf` does not import it.
"""

from synflow_tf.tfmot.pruning import prune_synflow as prune_synflow

__all__ = ["prune_synflow"]
