"""A table of models, one of each kind that SynFlow must handle.

`conformance_test` checks for each of them, in both Keras lines, what holds for
any model.
"""

import dataclasses
import typing

import common
import conformance_layers
import keras
import numpy as np
import tf_keras

TABLE = {}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A kind of model.

    Attributes:
        name: str.
        shapes: tuple of the shapes of its inputs, without batch.
        make: function of a Keras line; its layers, and one symbolic tensor
            for each input, of which it returns the outputs; if `subclassed`,
            of nothing else, and it returns the model.
        note: str, what is special about it.
        subclassed: bool.
        vocabulary: int, how many numbers its integer inputs go up to; 0 if
            its inputs are floats.
        skip: dict of a line to the reason why it has no such model.
    """

    name: str
    shapes: tuple
    make: typing.Any
    note: str
    subclassed: bool = False
    vocabulary: int = 0
    skip: dict = dataclasses.field(default_factory=dict)

    def build(self, line):
        """Returns a built model of a line, the same one every time."""
        line.utils.set_random_seed(0)
        if self.subclassed:
            model = self.make(line)
            model(np.zeros((2, *self.shapes[0]), "float32"))
            return model
        dtype = "int32" if self.vocabulary else "float32"
        inputs = [line.Input(shape, dtype=dtype) for shape in self.shapes]
        outputs = self.make(line, line.layers, *inputs)
        return line.Model(inputs if inputs[1:] else inputs[0], outputs)

    def data(self, examples):
        """Returns random inputs, an array for one, else a list."""
        rng = np.random.default_rng(0)
        arrays = [
            rng.integers(1, self.vocabulary, (examples, *shape))
            if self.vocabulary
            else rng.normal(size=(examples, *shape)).astype("float32")
            for shape in self.shapes
        ]
        return arrays if arrays[1:] else arrays[0]


def _entry(*shapes, note, **kwargs):
    """Puts a function that makes a model into the table: a decorator."""

    def decorate(make):
        name = make.__name__
        TABLE[name] = Entry(name, shapes, make, note, **kwargs)
        return make

    return decorate


# Chains.


@_entry((8,), note="tanh is not homogeneous; the sum of a softmax is always 1")
def mlp(line, k, x):
    for _ in range(2):
        x = k.Dense(16, activation="tanh")(x)
    return k.Dense(4, activation="softmax")(x)


@_entry((6, 6, 3), note="slopes that are weights")
def prelu(line, k, x):
    x = k.PReLU()(k.Conv2D(8, 3, padding="same")(x))
    x = k.PReLU(shared_axes=[1, 2])(k.Conv2D(8, 3)(x))
    return k.Dense(3)(k.Flatten()(x))


@_entry((8, 8, 4), note="no gradient on a CPU but group by group")
def grouped_convolution(line, k, x):
    x = k.Conv2D(12, 3, groups=4, activation="relu")(x)
    x = k.Conv2D(12, 3, 2, groups=3)(x)
    return k.Dense(3)(k.GlobalAveragePooling2D()(x))


@_entry((8, 8, 4), note="kernels of other names; ReLU6 saturates")
def depthwise_separable(line, k, x):
    x = k.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = k.ReLU(6.0)(k.BatchNormalization()(x))
    x = k.SeparableConv2D(12, 3, activation="relu")(x)
    return k.Dense(3)(k.GlobalMaxPooling2D()(x))


@_entry(
    (6, 6, 2),
    note="no sharing, and sums over windows in the backend's functions",
    skip={keras: "LocallyConnected2D was dropped in Keras 3"},
)
def locally_connected(line, k, x):
    x = k.LocallyConnected2D(5, 3, activation="relu")(x)
    return k.Dense(3)(k.Flatten()(x))


@_entry((8, 8, 3), note="augmentation, and offsets that are no flow")
def preprocessing(line, k, x):
    x = k.RandomFlip()(k.Rescaling(1 / 127.5, offset=-1)(x))
    x = k.RandomRotation(0.1)(x)
    x = k.Normalization(mean=[0.4, -0.5, 0.6], variance=[0.1, 0.2, 0.3])(x)
    x = k.Conv2D(8, 3, activation="relu")(x)
    return k.Dense(3)(k.Flatten()(x))


@_entry((6, 6, 3), note="TensorFlow interpolates in float32 only")
def resizing(line, k, x):
    x = k.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = k.UpSampling2D(2, interpolation="bilinear")(x)
    x = k.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = k.Resizing(7, 7)(x)
    return k.Dense(3)(k.GlobalAveragePooling2D()(x))


@_entry((6, 6, 3), note="float16 activations over float32 weights")
def mixed_float16(line, k, x):
    policy = "mixed_float16"
    x = k.Conv2D(8, 3, activation="relu", dtype=policy)(x)
    x = k.BatchNormalization(dtype=policy)(x)
    x = k.Dense(16, activation="relu", dtype=policy)(k.Flatten()(x))
    return k.Dense(3, dtype="float32")(x)


# Recurrence.


@_entry((7, 6), note="a kernel that every path passes at every step")
def simple_rnn(line, k, x):
    return k.Dense(3)(k.SimpleRNN(16)(x))


@_entry((7, 6), note="four gates in one kernel")
def lstm(line, k, x):
    x = k.LSTM(8, return_sequences=True)(k.Dense(8)(x))
    return k.Dense(3, activation="sigmoid")(x)


@_entry((7, 6), note="three gates in one kernel, one of them of a product")
def gru(line, k, x):
    x = k.GRU(8, go_backwards=True)(k.Dense(8)(x))
    return k.Dense(3)(x)


@_entry((5, 6), note="cells stacked in one layer, with a state that is used")
def rnn_of_cells(line, k, x):
    x, *states = k.RNN([k.LSTMCell(6), k.GRUCell(7)], return_state=True)(x)
    return k.Dense(3)(k.Concatenate()([x, states[-1]]))


@_entry((5, 6), note="two directions, each with its own scale")
def bidirectional(line, k, x):
    x = k.Bidirectional(k.LSTM(6, return_sequences=True))(x)
    return k.Dense(3)(k.Flatten()(x))


@_entry((3, 6, 6, 2), note="a layer for each step")
def time_distributed(line, k, x):
    x = k.TimeDistributed(k.Conv2D(6, 3, activation="relu"))(x)
    x = k.TimeDistributed(k.Flatten())(x)
    x = k.TimeDistributed(k.Dense(8, activation="relu"))(x)
    return k.Dense(3)(k.Flatten()(x))


@_entry((3, 6, 6, 2), note="gates that are convolutions")
def conv_lstm(line, k, x):
    x = k.ConvLSTM2D(6, 3, padding="same")(x)
    return k.Dense(3)(k.Flatten()(x))


@_entry((6,), note="integers, some of them masked", vocabulary=20)
def embedding_lstm(line, k, x):
    x = k.Embedding(20, 8, mask_zero=True)(x)
    return k.Dense(1, activation="sigmoid")(k.LSTM(8)(x))


@_entry((12, 4), note="WaveNet: tanh times sigmoid, skips, dilation")
def wavenet(line, k, x):
    x = k.Conv1D(8, 2, padding="causal")(x)
    skips = []
    for dilation in (1, 2):
        options = {"padding": "causal", "dilation_rate": dilation}
        gate = k.Conv1D(8, 2, activation="sigmoid", **options)(x)
        y = k.Conv1D(8, 2, activation="tanh", **options)(x)
        y = k.Conv1D(8, 1)(k.Multiply()([y, gate]))
        skips.append(y)
        x = k.Add()([x, y])
    return k.Dense(3)(k.ReLU()(k.Add()(skips))[:, -1])


# Attention.


@_entry((16, 16, 3), note="attention as a layer, whose weights are a gate")
def vit_block(line, k, x):
    x = k.Reshape((16, 16))(k.Conv2D(16, 4, strides=4)(x))
    y = k.LayerNormalization()(x)
    x = k.Add()([x, k.MultiHeadAttention(2, 8)(y, y)])
    y = k.Dense(32, activation="gelu")(k.LayerNormalization()(x))
    x = k.Add()([x, k.Dense(16)(k.Dropout(0.1)(y))])
    x = k.GlobalAveragePooling1D()(k.LayerNormalization()(x))
    return k.Dense(4, activation="softmax")(x)


@_entry((6, 12), note="a mask made from the shape, and no skip")
def causal_attention(line, k, x):
    x = k.MultiHeadAttention(2, 6)(x, x, use_causal_mask=True)
    return k.Dense(4)(x)


@_entry((6, 12), (5, 8), note="queries and values from different inputs")
def cross_attention(line, k, x, y):
    z = k.MultiHeadAttention(2, 6)(x, y)
    return k.Dense(4)(k.Add()([x, z]))


@_entry(
    (6, 12),
    note="several queries share keys and values",
    skip={tf_keras: "GroupQueryAttention exists in Keras 3 only"},
)
def group_query_attention(line, k, x):
    x = k.GroupQueryAttention(6, 4, 2)(x, x)
    return k.Dense(4)(x)


@_entry((6, 8), note="layers of attention that have hardly a weight")
def attention_layers(line, k, x):
    query, value = k.Dense(8)(x), k.Dense(8)(x)
    y = k.Attention(use_scale=True)([query, value])
    z = k.AdditiveAttention()([query, value])
    return k.Dense(4)(k.Concatenate()([y, z]))


# Joins and gates.


@_entry((8, 8, 3), note="attention gates over skips, transposed convolutions")
def unet(line, k, x):
    skip = k.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = k.MaxPooling2D()(skip)
    x = k.Conv2D(12, 3, padding="same", activation="relu")(x)
    up = k.Conv2DTranspose(6, 2, strides=2)(x)
    both = k.Add()([k.Conv2D(6, 1)(up), k.Conv2D(6, 1)(skip)])
    gate = k.Conv2D(1, 1, activation="sigmoid")(k.ReLU()(both))
    x = k.Concatenate()([up, k.Multiply()([skip, gate])])
    x = k.Conv2D(6, 3, padding="same", activation="relu")(x)
    return k.Conv2D(2, 1, activation="softmax")(x)


@_entry((8, 8, 3), note="a gate for each channel")
def squeeze_excite(line, k, x):
    x = k.Conv2D(12, 3, activation="swish")(x)
    gate = k.GlobalAveragePooling2D(keepdims=True)(x)
    gate = k.Conv2D(6, 1, activation="relu")(gate)
    gate = k.Conv2D(12, 1, activation="sigmoid")(gate)
    x = k.Conv2D(12, 3)(k.Multiply()([x, gate]))
    return k.Dense(3)(k.GlobalAveragePooling2D()(x))


@_entry((8,), note="one half of a projection gates the other")
def gated_linear_unit(line, k, x):
    o = common.ops(line)
    a, b = o.split(k.Dense(24)(x), 2, -1)
    return k.Dense(3)(a * o.sigmoid(b))


@_entry((8,), note="a tensor gates itself")
def swish_inline(line, k, x):
    o = common.ops(line)
    for _ in range(2):
        x = k.Dense(12)(x)
        x = x * o.sigmoid(x)
    return k.Dense(3)(x)


@_entry((6, 8), note="operations in the place of layers")
def operations_inline(line, k, x):
    o = common.ops(line)
    x = k.Dense(12)(x)
    y = o.relu(0.5 * x - 1.0)
    x = o.concatenate([x, o.tanh(y) / 3.0], -1)
    x = o.reshape(o.transpose(x, (0, 2, 1)), (-1, 144))
    return k.Dense(3)(-o.expand_dims(x, 1))


@_entry((8,), note="not sums, but as large as sums at most")
def maximum_minimum(line, k, x):
    x = k.Maximum()([k.Dense(12)(x), k.Dense(12)(x)])
    x = k.Minimum()([k.Dense(12)(x), k.Dense(12)(x), x])
    return k.Dense(3)(x)


@_entry((6, 6, 8), note="divide by what they measure")
def normalizations(line, k, x):
    x = k.LayerNormalization()(k.Conv2D(8, 3, padding="same")(x))
    x = k.GroupNormalization(4)(k.Conv2D(8, 3, padding="same")(x))
    if hasattr(k, "RMSNormalization"):  # Keras 3
        x = k.RMSNormalization()(x)
    x = k.Dense(12, activation="relu")(k.Flatten()(x))
    return k.Dense(3)(k.UnitNormalization()(x))


@_entry(
    (8,),
    note="wraps a layer, and divides its kernel by a norm",
    skip={
        tf_keras: "its own SpectralNormalization takes its InputSpec from "
        "tf.keras, and so fails where that is Keras 3"
    },
)
def spectral_normalization(line, k, x):
    for _ in range(2):
        x = k.SpectralNormalization(k.Dense(12, activation="relu"))(x)
    return k.Dense(3)(x)


@_entry((6, 6, 3), note="ConvNeXt: a branch times a small weight")
def layer_scale(line, k, x):
    mine = conformance_layers.of(line)
    x = k.Conv2D(12, 3)(x)
    y = k.DepthwiseConv2D(3, padding="same")(x)
    y = k.Dense(24, activation="gelu")(k.LayerNormalization()(y))
    x = k.Add()([x, mine.LayerScale()(k.Dense(12)(y))])
    return k.Dense(3)(k.GlobalAveragePooling2D()(x))


@_entry((6, 8), note="a token of zeros through which flow must pass")
def class_token(line, k, x):
    mine = conformance_layers.of(line)
    x = mine.ClassToken()(k.Dense(12)(x))
    x = k.Add()([x, k.MultiHeadAttention(2, 6)(x, x)])
    return k.Dense(4)(x[:, 0])


# Models of models.


@_entry((8,), (8,), note="shared weights; equal inputs cancel")
def siamese(line, k, x, y):
    layers = k.Dense(16, activation="relu"), k.Dense(8)
    tower = line.Sequential([line.Input((8,)), *layers])
    return k.Dense(2)(k.Subtract()([tower(x), tower(y)]))


@_entry((8,), (6, 4), note="two inputs, two outputs")
def several_inputs_and_outputs(line, k, x, y):
    x = k.Dense(12, activation="relu")(x)
    y = k.Flatten()(k.Conv1D(6, 3, activation="relu")(y))
    z = k.Dense(12, activation="relu")(k.Concatenate()([x, y]))
    return [k.Dense(3, activation="softmax")(z), k.Dense(2)(x)]


@_entry((8,), note="functional models three deep, the innermost shared")
def nested(line, k, x):
    tensor = line.Input((12,))
    inner = line.Model(tensor, k.Dense(12, activation="relu")(tensor))
    tensor = line.Input((12,))
    middle = line.Model(tensor, k.Add()([tensor, inner(inner(tensor))]))
    tensor = line.Input((8,))
    y = middle(k.Dense(12)(tensor))
    outer = line.Model(tensor, k.Dense(12)(y))
    return k.Dense(3)(outer(x))


@_entry((8, 8, 3), note="a backbone of another size, called anew")
def backbone_and_head(line, k, x):
    image = line.Input((None, None, 3))
    y = k.Conv2D(8, 3, padding="same", use_bias=False)(image)
    y = k.ReLU()(k.BatchNormalization()(y))
    y = k.Add()([y, k.Conv2D(8, 3, padding="same")(y)])
    backbone = line.Model(image, y)
    x = k.GlobalAveragePooling2D()(backbone(x, training=False))
    return k.Dense(4)(k.Dropout(0.2)(x))


# Classes of a user's own.


@_entry((8, 8, 3), note="no graph but what comes out", subclassed=True)
def subclassed_resnet(line):
    return conformance_layers.of(line).ResNet()


@_entry((16, 16, 3), note="Q, K, V are one kernel", subclassed=True)
def transformer(line):
    return conformance_layers.of(line).Transformer()


@_entry((8, 8, 3), note="opened within a graph of layers")
def subclassed_block(line, k, x):
    mine = conformance_layers.of(line)
    x = mine.Residual(8, strides=2)(k.Conv2D(6, 3, padding="same")(x))
    return k.Dense(3)(k.GlobalAveragePooling2D()(x))


@_entry((8,), note="operations of TensorFlow, in a layer of Keras 3 too")
def raw_tensorflow(line, k, x):
    mine = conformance_layers.of(line)
    x = mine.RawDense(12)(mine.RawDense(12)(x))
    return k.Dense(3)(x)


@_entry((6, 8), note="sizes are read, and computed with, when it runs")
def sizes_at_run_time(line, k, x):
    mine = conformance_layers.of(line)
    x = mine.Folded(12)(mine.Folded(12)(x))
    return k.Dense(3)(k.GlobalAveragePooling1D()(x))


@_entry((8,), note="weights of other names, which a layer says are prunable")
def prunable_by_protocol(line, k, x):
    mine = conformance_layers.of(line)
    x = mine.LowRank(6)(k.Dense(12, activation="relu")(x))
    return k.Dense(3)(x)
