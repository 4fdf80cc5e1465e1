"""The networks of the SynFlow paper (arXiv 2006.05467), in either Keras line.

All functions take the same arguments:

    input_shape  shape of one input, without the batch: (height, width,
                 channels). By default that of the paper: MNIST's (28, 28, 1)
                 for fc and conv, else CIFAR's (32, 32, 3). A ResNet also takes
                 None for height and width, fc a shape of any rank.
    classes      number of logits; 10 by default
    keras        the module `keras` (Keras 3, the default) or the module
                 `tf_keras` (Keras 2, which tfmot needs)

They return a built functional model, (batch, *input_shape) -> (batch, classes),
and raise ValueError if `keras` is neither module, or a size is unknown.

>>> resnet20().count_params()
274042
"""

from synflow_tf.models.mlp import conv
from synflow_tf.models.mlp import fc
from synflow_tf.models.resnet import resnet20
from synflow_tf.models.resnet import resnet32
from synflow_tf.models.resnet import resnet44
from synflow_tf.models.resnet import resnet56
from synflow_tf.models.resnet import resnet110
from synflow_tf.models.resnet import wide_resnet20
from synflow_tf.models.resnet import wide_resnet32
from synflow_tf.models.resnet import wide_resnet44
from synflow_tf.models.resnet import wide_resnet56
from synflow_tf.models.resnet import wide_resnet110
from synflow_tf.models.vgg import vgg11
from synflow_tf.models.vgg import vgg11_bn
from synflow_tf.models.vgg import vgg13
from synflow_tf.models.vgg import vgg13_bn
from synflow_tf.models.vgg import vgg16
from synflow_tf.models.vgg import vgg16_bn
from synflow_tf.models.vgg import vgg19
from synflow_tf.models.vgg import vgg19_bn

__all__ = [
    "conv",
    "fc",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet20",
    "wide_resnet32",
    "wide_resnet44",
    "wide_resnet56",
    "wide_resnet110",
]
