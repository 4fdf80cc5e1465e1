"""The model as SynFlow sees it: absolute weights, every operation linear.

    R = 1^T |theta^[L]| ... |theta^[1]| 1         (Tanaka et al. 2020, eq. 2)

for a chain of layers; in general, the sum of the outputs of the graph of
operations, each replaced by one linear map with positive weights. `lower` finds
the patterns, in one `pass_*` each; `registry` says which map an operation
becomes, `rules_*` hold those of TensorFlow; and `run` puts an input through
them.
"""

from synflow_tf.linearize import rules_contractions as rules_contractions
from synflow_tf.linearize import rules_joining as rules_joining
from synflow_tf.linearize import rules_pointwise as rules_pointwise
from synflow_tf.linearize import rules_recurrent as rules_recurrent
from synflow_tf.linearize import rules_structure as rules_structure
from synflow_tf.linearize.checks import check as check
from synflow_tf.linearize.executor import flow_of as flow_of
from synflow_tf.linearize.executor import ones as ones
from synflow_tf.linearize.executor import run as run
from synflow_tf.linearize.lower import lower as lower
from synflow_tf.linearize.lower import plain as plain
from synflow_tf.linearize.paths import skip_paths as skip_paths
from synflow_tf.linearize.registry import register_rule as register_rule
from synflow_tf.linearize.weights import LinearWeights as LinearWeights
