"""Reduces the reference data of the authors' code to what the tests read.

    python tests/golden/reduce.py REFERENCE AUTHORS_CODE

REFERENCE is the folder with the full ``model_*.npz`` and ``case_*.npz``,
AUTHORS_CODE a copy of ganguli-lab/Synaptic-Flow at 9dfa57a. Needs NumPy and
torch, and nothing of synflow_tf: no golden value comes from our own code. What
is kept, and how, is written in the README beside this file.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
MODELS = ("fc", "conv", "resnet20", "resnet20bn")
DRAWN = {  # tag -> (module of the authors' code, input shape)
    "vgg11": ("lottery_vgg", (3, 32, 32)),
    "vgg11_bn": ("lottery_vgg", (3, 32, 32)),
    "wide_resnet20": ("lottery_resnet", (3, 32, 32)),
}
DROPPED_BITS = 17  # of the 52 of a float64 mantissa: relative error < 1.5e-11


def draw(shapes):
    """Draws parameters for a network, the same in every version of NumPy.

    Args:
        shapes: PyTorch name -> shape, in the order in which to draw.

    Returns:
        PyTorch name -> float32 array: kernels He normal, BatchNorm weights
        and variances positive, everything else small.
    """
    random = np.random.RandomState(7)  # a frozen stream, unlike default_rng
    parameters = {}
    for name, shape in shapes.items():
        noise = random.standard_normal(shape)
        if len(shape) > 1:
            value = noise * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = 0.5 + np.abs(noise)
        elif name.endswith(".weight"):
            value = 1 + 0.1 * noise
        else:
            value = 0.1 * noise
        parameters[name] = value.astype(np.float32)
    return parameters


def inputs(input_shape):
    """Returns the inputs of the recorded logits.

    Args:
        input_shape: (height, width, channels) of one image.

    Returns:
        float32 (2, height, width, channels): ones, and -1 ... 1 in C order.
    """
    ramp = np.linspace(-1, 1, int(np.prod(input_shape)))
    ones = np.ones(input_shape)
    return np.stack([ones, ramp.reshape(input_shape)]).astype(np.float32)


def _rounded(scores):
    bits = np.ascontiguousarray(scores, np.float64).view(np.uint64)
    half = np.uint64(1 << (DROPPED_BITS - 1))
    mask = np.uint64(~((1 << DROPPED_BITS) - 1) & (2**64 - 1))
    return ((bits + half) & mask).view(np.float64)


def _is_used(name):
    """Whether the Keras twin has this parameter; an Identity2d is all ones."""
    unused = ("num_batches_tracked", ".shortcut.weight", "_mask")
    return not name.endswith(unused)


def _reduce_models(reference):
    stored = {}
    for tag in MODELS:
        full = np.load(reference / f"model_{tag}.npz")
        arrays = {"meta": full["meta"]}
        for key in full.files:
            kind, _, name = key.partition("/")
            if kind == "score1_f64":
                arrays[key] = _rounded(full[key])
            elif kind == "param" and _is_used(name):
                arrays[key] = full[key]
            elif kind == "param" and name.endswith(".shortcut.weight"):
                np.testing.assert_array_equal(full[key], 1)
        stored[tag] = arrays
    plain, random_bn = stored["resnet20"], stored["resnet20bn"]
    for key in [k for k in random_bn if k.startswith("param/")]:
        if np.array_equal(random_bn[key], plain[key]):
            del random_bn[key]
    for tag, arrays in stored.items():
        np.savez_compressed(HERE / f"model_{tag}.npz", **arrays)


def _reduce_cases(reference):
    per_round = ("keep_f64", "remaining_f64", "R_f64", "threshold_f64")
    for path in sorted(reference.glob("case_*_synflow_*.npz")):
        full = np.load(path)
        meta = json.loads(str(full["meta"]))
        arrays = {key: full[key] for key in per_round if key in full.files}
        for key in full.files:
            if key.startswith("mask_f64/"):
                mask = full[key]
                arrays[key] = mask if meta["pack"] else np.packbits(mask)
        meta["pack"] = True
        np.savez_compressed(HERE / path.name, meta=json.dumps(meta), **arrays)


def _record_logits(reference, code):
    import torch

    sys.path.insert(0, str(code))
    from Models import lottery_resnet
    from Models import lottery_vgg
    from Models import mlp

    def logits(model, parameters, input_shape):
        state = model.state_dict()
        for name, value in parameters.items():
            state[name].copy_(torch.tensor(value))
        model = model.double().eval()
        channels, height, width = input_shape
        images = inputs((height, width, channels)).transpose(0, 3, 1, 2)
        with torch.no_grad():
            return model(torch.tensor(images).double()).numpy()

    arrays, shapes = {}, {}
    for tag in MODELS:
        full = np.load(reference / f"model_{tag}.npz")
        input_shape = tuple(json.loads(str(full["meta"]))["input_shape"])
        build = getattr(mlp, tag, lottery_resnet.resnet20)
        parameters = {
            key.removeprefix("param/"): full[key]
            for key in full.files
            if key.startswith("param/")
        }
        arrays[tag] = logits(build(input_shape, 10), parameters, input_shape)
    modules = {"lottery_vgg": lottery_vgg, "lottery_resnet": lottery_resnet}
    for tag, (module, input_shape) in DRAWN.items():
        model = getattr(modules[module], tag)(input_shape, 10)
        shapes[tag] = {
            name: list(value.shape)
            for name, value in model.state_dict().items()
            if _is_used(name)
        }
        arrays[tag] = logits(model, draw(shapes[tag]), input_shape)
    np.savez_compressed(
        HERE / "logits.npz", shapes=json.dumps(shapes), **arrays
    )


def main(reference, code):
    """Writes the reduced data beside this file."""
    reference = pathlib.Path(reference)
    _reduce_models(reference)
    _reduce_cases(reference)
    _record_logits(reference, pathlib.Path(code))


if __name__ == "__main__":
    main(*sys.argv[1:])
