"""Exports pruned models to TFLite, and proves what the file computes."""

from synflow_tf.export.export import TFLiteReport as TFLiteReport
from synflow_tf.export.export import export_tflite as export_tflite
