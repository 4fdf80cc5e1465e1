"""Writes and reads files of masks: NumPy archives of one bit per weight."""

import json
import zipfile

import numpy as np

_FORMAT = "synflow_tf masks 1"
# The errors that NumPy, JSON and the code below raise for other files.
_UNREADABLE = (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)


def write(path, masks, meta):
    """Writes a mapping of weight path to bool array, and `meta` for JSON."""
    shapes = {name: mask.shape for name, mask in masks.items()}
    meta = {"format": _FORMAT, "shapes": shapes, **meta}
    flat = np.concatenate([mask.ravel() for mask in masks.values()])
    with open(path, "wb") as file:
        np.savez_compressed(
            file, meta=np.array(json.dumps(meta)), bits=np.packbits(flat)
        )


def read(path):
    """Reads what `write` wrote: a dict of path to array of 0 and 1, and `meta`.

    Raises ValueError if the file is another one, or is truncated.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            meta = json.loads(str(data["meta"]))
            bits = np.unpackbits(data["bits"])
        if meta["format"] != _FORMAT:
            raise ValueError(f"format {meta['format']!r}")
        masks = {}
        start = 0
        for name, shape in meta["shapes"].items():
            size = int(np.prod(shape))
            masks[name] = bits[start : start + size].reshape(shape)
            start += size
        return masks, meta
    except _UNREADABLE as error:
        raise ValueError(
            "Argument `path` must be a file that `Masks.save` wrote. "
            f"Received: path={str(path)!r}, which is damaged or something "
            f"else ({error}). Compute the masks again, or read them from "
            "the zeros of the pruned model with `Masks.from_model(model)`."
        ) from error
