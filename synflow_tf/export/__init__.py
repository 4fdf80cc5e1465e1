"""Exports pruned models to TFLite, and checks what the files compute."""

from synflow_tf.export.export import TFLiteReport as TFLiteReport
from synflow_tf.export.export import export_tflite as export_tflite
