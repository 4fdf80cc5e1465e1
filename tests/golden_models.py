"""Reads the golden data of the authors' code into Keras models and layouts.

Names are the authors' PyTorch names ("blocks.3.conv1.weight"). A golden array
has PyTorch's layout until `to_keras` changes it.
"""

import json
import pathlib
import re

import numpy as np
from golden import reduce

from synflow_tf import models

FOLDER = pathlib.Path(__file__).parent / "golden"
TAGS = reduce.MODELS

# The Linear layers after a flatten: PyTorch flattens C, H, W, Keras H, W, C.
_FLATTENED = {("fc", "1.weight"): (1, 8, 8), ("conv", "5.weight"): (32, 8, 8)}

_MLP_LAYERS = {
    "fc": {str(2 * i - 1): f"fc{i}" for i in range(1, 7)},
    "conv": {"0": "conv1", "2": "conv2", "5": "fc"},
}
_RESNET_LAYERS = (
    (r"bn", "conv_bn"),
    (r"blocks\.(\d+)\.conv(\d)", r"block\1_conv\2"),
    (r"blocks\.(\d+)\.bn(\d)", r"block\1_conv\2_bn"),
    (r"blocks\.(\d+)\.shortcut\.0", r"block\1_shortcut"),
    (r"blocks\.(\d+)\.shortcut\.1", r"block\1_shortcut_bn"),
)


def load(tag, keras):
    """Builds the Keras twin of a golden model, with the golden parameters.

    Args:
        tag: One of `TAGS`.
        keras: The module `keras` or `tf_keras`.

    Returns:
        The model, and a dict from the name of each golden weight, in the
        official order, to the kernel variable of the model.
    """
    meta = read_meta(tag)
    channels, height, width = meta["input_shape"]
    build = getattr(models, tag.removesuffix("bn"))
    model = build((height, width, channels), 10, keras)
    variables = assign(tag, model, _parameters(tag))
    names = meta["prunable_in_official_order"]
    return model, {name: variables[name] for name in names}


def load_drawn(tag, keras):
    """Builds a model of `reduce.DRAWN` with the parameters of `reduce.draw`."""
    shapes = json.loads(str(_read("logits")["shapes"]))[tag]
    _, (channels, height, width) = reduce.DRAWN[tag]
    model = getattr(models, tag)((height, width, channels), 10, keras)
    assign(tag, model, reduce.draw(shapes))
    return model


def assign(tag, model, parameters):
    """Puts PyTorch parameters into a Keras model.

    Args:
        tag: Which golden model it is.
        model: Its Keras twin; every variable of it gets a value.
        parameters: Name -> array in PyTorch's layout.

    Returns:
        Name -> variable.
    """
    variables = {}
    for name, value in parameters.items():
        variable = _variable(tag, model, name, parameters)
        variable.assign(to_keras(tag, name, value))
        variables[name] = variable
    assigned = {id(variable) for variable in variables.values()}
    missing = [v.name for v in model.weights if id(v) not in assigned]
    if missing or len(assigned) != len(model.weights):
        raise ValueError(f"No golden value for {missing} of {tag}.")
    return variables


def to_keras(tag, name, array):
    """Converts a parameter, score or mask into the Keras layout.

    Args:
        tag: Which golden model it is of.
        name: The PyTorch name of the parameter.
        array: Linear (out, in), Conv2d (out, in, kh, kw), or a vector.

    Returns:
        Dense (in, out), Conv2D (kh, kw, in, out), or the vector.
    """
    if (tag, name) in _FLATTENED:
        image = array.reshape(-1, *_FLATTENED[tag, name])
        array = image.transpose(0, 2, 3, 1).reshape(array.shape)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T


def scores(tag):
    """Returns the float64 scores of round 1: name -> array in Keras layout."""
    golden = _read(f"model_{tag}")
    return {
        name: to_keras(tag, name, golden[f"score1_f64/{name}"])
        for name in read_meta(tag)["prunable_in_official_order"]
    }


def cases(tag=""):
    """Returns the names of the recorded runs, of one model or of all."""
    pattern = f"case_{tag}_*.npz" if tag else "case_*.npz"
    return sorted(path.stem for path in FOLDER.glob(pattern))


def load_case(name):
    """Reads a recorded run.

    Args:
        name: One of `cases()`.

    Returns:
        Its meta as a dict, its arrays as a dict, and its final masks: name ->
        0 or 1 (uint8) in Keras layout.
    """
    arrays = _read(name)
    meta = json.loads(str(arrays.pop("meta")))
    masks = {
        weight: to_keras(meta["model"], weight, unpack(arrays, weight, shape))
        for weight, shape in meta["shapes"].items()
    }
    return meta, arrays, masks


def unpack(case, name, shape):
    """Returns a mask of a recorded run in PyTorch's layout, uint8.

    Args:
        case: The arrays of the run.
        name: Name of the weight.
        shape: PyTorch shape of the weight, from the run's meta.
    """
    packed = case[f"mask_f64/{name}"]
    return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape)


def read_meta(tag):
    """Returns the meta of a golden model as a dict."""
    return json.loads(str(_read(f"model_{tag}")["meta"]))


def logits(tag):
    """Returns the authors' logits, float64 (2, 10), for `reduce.inputs`."""
    return _read("logits")[tag]


def _read(stem):
    with np.load(FOLDER / f"{stem}.npz") as file:
        return dict(file)


def _parameters(tag):
    # resnet20bn stores only what differs from resnet20.
    arrays = _read("model_resnet20") if tag == "resnet20bn" else {}
    arrays.update(_read(f"model_{tag}"))
    return {
        key.removeprefix("param/"): value
        for key, value in arrays.items()
        if key.startswith("param/")
    }


def _variable(tag, model, name, parameters):
    module, _, leaf = name.rpartition(".")
    layer = model.get_layer(_layer_name(tag, module, parameters))
    if f"{module}.running_mean" in parameters:
        attribute = {
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        }[leaf]
    else:
        attribute = {"weight": "kernel", "bias": "bias"}[leaf]
    return getattr(layer, attribute)


def _layer_name(tag, module, parameters):
    if tag in _MLP_LAYERS:
        return _MLP_LAYERS[tag][module]
    if tag.startswith("vgg"):
        return _vgg_layer_name(module, parameters)
    for pattern, replacement in _RESNET_LAYERS:
        if re.fullmatch(pattern, module):
            return re.sub(pattern, replacement, module)
    return module  # "conv", "fc"


def _vgg_layer_name(module, parameters):
    """Counts the convolutions only: "layers.3.conv" is "conv2"."""
    if module == "fc":
        return module
    numbers = re.findall(r"layers\.(\d+)\.conv\.weight", " ".join(parameters))
    _, number, kind = module.split(".")
    suffix = "_bn" if kind == "bn" else ""
    return f"conv{numbers.index(number) + 1}{suffix}"
