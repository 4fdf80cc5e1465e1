"""Layers and models of a user's own, of either Keras line.

The line's classes are made by functions, because a class has one base.
"""

import functools
import types

import common
import tensorflow as tf


@functools.lru_cache
def of(line):
    """The classes below, as subclasses of a line's layers and models.

    Args:
        line: the module `keras` or `tf_keras`.

    Returns:
        A namespace of classes that the line can save and load.
    """
    register = line.saving.register_keras_serializable("conformance")
    found = {}
    for make in (_small_layers, _attention, _resnet):
        found.update(make(line, types.SimpleNamespace(**found)))
    return types.SimpleNamespace(**{n: register(c) for n, c in found.items()})


def _small_layers(line, _):
    o = common.ops(line)

    class Wide(line.layers.Layer):
        """A layer that has a width, and is saved with it."""

        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.width = width

        def get_config(self):
            return {**super().get_config(), "width": self.width}

    class LayerScale(line.layers.Layer):
        """Every channel times a small weight."""

        def build(self, shape):
            small = line.initializers.Constant(1e-4)
            self.gamma = self.add_weight(
                name="gamma", shape=(shape[-1],), initializer=small
            )
            self.built = True

        def call(self, x):
            return x * self.gamma

    class ClassToken(line.layers.Layer):
        """A token of zeros in front, and a weight for each position."""

        def build(self, shape):
            _, length, width = shape
            self.token = self.add_weight(
                name="token", shape=(1, 1, width), initializer="zeros"
            )
            self.position = self.add_weight(
                name="position",
                shape=(1, length + 1, width),
                initializer="random_normal",
            )
            self.built = True

        def call(self, x):
            """Returns [token, x] + position."""
            shape = (o.shape(x)[0], 1, x.shape[-1])
            token = o.broadcast_to(self.token, shape)
            return o.concatenate([token, x], 1) + self.position

    class Folded(Wide):
        """A dense layer with time as a part of the batch, for a while."""

        def build(self, shape):
            self.kernel = self.add_weight(
                name="kernel", shape=(shape[-1], self.width)
            )
            self.built = True

        def call(self, x):
            """Reshapes by sizes that are known when it runs only."""
            batch, time = o.shape(x)[0], o.shape(x)[1]
            y = o.reshape(x, (batch * time, x.shape[-1]))
            y = o.relu(o.matmul(y, self.kernel))
            return o.reshape(y, (batch, time + 1 - 1, self.width))

    class RawDense(Wide):
        """A dense layer in TensorFlow's own operations."""

        def build(self, shape):
            self.kernel = self.add_weight(
                name="kernel", shape=(shape[-1], self.width)
            )
            self.bias = self.add_weight(name="bias", shape=(self.width,))
            self.built = True

        def call(self, x):
            """Returns relu(x kernel + bias)."""
            return tf.nn.relu(tf.matmul(x, self.kernel) + self.bias)

    class LowRank(Wide):
        """Two factors, neither called a kernel: tfmot's protocol names them."""

        def build(self, shape):
            self.left = self.add_weight(
                name="left", shape=(shape[-1], self.width)
            )
            self.right = self.add_weight(
                name="right", shape=(self.width, shape[-1])
            )
            self.shift = self.add_weight(name="shift", shape=(shape[-1],))
            self.built = True

        def call(self, x):
            """Returns x left right + shift."""
            x = o.matmul(o.matmul(x, self.left), self.right)
            return x + self.shift

        def get_prunable_weights(self):
            """What tfmot prunes of a layer."""
            return [self.left, self.right]

    made = Wide, LayerScale, ClassToken, Folded, RawDense, LowRank
    return {one.__name__: one for one in made}


def _attention(line, known):
    k, o = line.layers, common.ops(line)
    heads = 2

    class Attention(known.Wide):
        """Self-attention spelled out, with one kernel for Q, K and V."""

        def __init__(self, width, **kwargs):
            super().__init__(width, **kwargs)
            self.qkv, self.project = k.Dense(3 * width), k.Dense(width)

        def call(self, x):
            """Returns softmax(Q K^T / sqrt(depth)) V, projected."""
            length, depth = x.shape[1], self.width // heads
            shape = (o.shape(x)[0], length, 3, heads, depth)
            y = o.transpose(o.reshape(self.qkv(x), shape), (2, 0, 3, 1, 4))
            query, key, value = y[0], y[1], y[2]
            scores = o.matmul(query, o.transpose(key, (0, 1, 3, 2)))
            y = o.matmul(o.softmax(scores / depth**0.5), value)
            y = o.transpose(y, (0, 2, 1, 3))
            return self.project(o.reshape(y, (-1, length, self.width)))

    class Block(known.Wide):
        """A block of a transformer."""

        def __init__(self, width, **kwargs):
            super().__init__(width, **kwargs)
            self.norm1 = k.LayerNormalization()
            self.attention = Attention(width)
            self.norm2 = k.LayerNormalization()
            self.mlp1 = k.Dense(2 * width, activation="gelu")
            self.mlp2 = k.Dense(width)

        def call(self, x):
            """Attention and an MLP, each beside a skip."""
            x = x + self.attention(self.norm1(x))
            return x + self.mlp2(self.mlp1(self.norm2(x)))

    class Transformer(line.Model):
        """Patches, a class token, blocks and a head."""

        def __init__(self, width=16, **kwargs):
            super().__init__(**kwargs)
            self.width = width
            self.patch = k.Conv2D(width, 4, strides=4)
            self.token = known.ClassToken()
            self.blocks = [Block(width) for _ in range(2)]
            self.norm = k.LayerNormalization()
            self.head = k.Dense(5, activation="softmax")

        def get_config(self):
            return {"width": self.width}

        def call(self, x, training=None):
            x = self.patch(x)
            x = o.reshape(x, (-1, x.shape[1] * x.shape[2], self.width))
            x = self.token(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])

    return {"Attention": Attention, "Block": Block, "Transformer": Transformer}


def _resnet(line, known):
    k, o = line.layers, common.ops(line)

    class Residual(known.Wide):
        """Two convolutions beside a skip, or beside a third."""

        def __init__(self, width, strides=1, **kwargs):
            super().__init__(width, **kwargs)
            self.strides = strides
            self.conv1 = k.Conv2D(width, 3, strides, "same", use_bias=False)
            self.bn1 = k.BatchNormalization()
            self.conv2 = k.Conv2D(width, 3, padding="same", use_bias=False)
            self.bn2 = k.BatchNormalization()
            self.shortcut = k.Conv2D(width, 1, strides) if strides > 1 else None

        def get_config(self):
            return {**super().get_config(), "strides": self.strides}

        def call(self, x, training=None):
            """Returns relu(x + conv(relu(conv(x))))."""
            y = o.relu(self.bn1(self.conv1(x), training=training))
            y = self.bn2(self.conv2(y), training=training)
            return o.relu(y + (self.shortcut(x) if self.shortcut else x))

    class ResNet(line.Model):
        """A stem, three blocks and a head."""

        def __init__(self, width=6, **kwargs):
            super().__init__(**kwargs)
            self.width = width
            self.stem = k.Conv2D(width, 3, padding="same")
            self.blocks = [
                Residual(width),
                Residual(2 * width, strides=2),
                Residual(2 * width),
            ]
            self.head = k.Dense(4)

        def get_config(self):
            return {"width": self.width}

        def call(self, x, training=None):
            x = o.relu(self.stem(x))
            for block in self.blocks:
                x = block(x, training=training)
            return self.head(o.mean(x, (1, 2)))

    return {"Residual": Residual, "ResNet": ResNet}
