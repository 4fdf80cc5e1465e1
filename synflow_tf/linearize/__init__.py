"""The model as SynFlow sees it: absolute weights, every layer linear.

    R = 1^T |theta^[L]| ... |theta^[1]| 1         (Tanaka et al. 2020, eq. 2)

for a chain of layers; in general, the sum of the outputs of the graph of
layers, each replaced by one linear map with positive weights. `registry` says
which map a layer becomes, `layers` and `shapes` hold those of Keras' own
layers, and `run` puts an input through them.
"""

from synflow_tf.linearize import layers as layers
from synflow_tf.linearize import normalization as normalization
from synflow_tf.linearize import opaque as opaque
from synflow_tf.linearize import recurrent as recurrent
from synflow_tf.linearize import shapes as shapes
from synflow_tf.linearize import sources as sources
from synflow_tf.linearize.checks import check as check
from synflow_tf.linearize.executor import LinearWeights as LinearWeights
from synflow_tf.linearize.executor import flow_of as flow_of
from synflow_tf.linearize.executor import ones as ones
from synflow_tf.linearize.executor import run as run
from synflow_tf.linearize.lowering import lower as lower
from synflow_tf.linearize.lowering import plain as plain
from synflow_tf.linearize.nested import is_leaf as is_leaf
from synflow_tf.linearize.paths import beside as beside
from synflow_tf.linearize.registry import register_rule as register_rule
