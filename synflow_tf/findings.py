"""Non-fatal diagnostics about weights or layers, told in one warning."""

import inspect
import os
import sys
import typing
import warnings

# A warning points at the first line outside of these: the user's.
_INNER = (
    "synflow_tf",
    "keras",
    "tf_keras",
    "tensorflow",
    "tensorflow_model_optimization",
)


class Finding(typing.NamedTuple):
    """A diagnostic about one weight, layer or model.

    Attributes:
        kind: str. "scale": a scale of zeros, with which training starts, counts
            as ones. "unscored": a weight through which no flow passes is kept
            as it is. "zeros": many weights of a kernel score exactly 0.
            "unstructured": N of M does not fit a kernel, which is kept as it
            is. "empty": all weights of a kernel are removed; it says where the
            flow goes instead. "collapse": no path is left through the model.
        name: str, the path of the weight, or the name of the layer or model.
        text: str, the diagnostic.
    """

    kind: str
    name: str
    text: str

    def __str__(self):
        return f"{self.name}: {self.text}"


def listed(items, separator=", ", most=6):
    """Joins the first of some items, and says if there are more."""
    items = list(map(str, items))
    return separator.join(items[:most]) + (" ..." if items[most:] else "")


def warn(found, quiet=()):
    """Sums findings up in one warning, at the line of the user's code.

    Args:
        found: iterable of `Finding`.
        quiet: kinds that the user has asked for.
    """
    texts = []
    for kind, summary in _SUMMARIES.items():
        members = [finding for finding in found if finding.kind == kind]
        if members and kind not in quiet:
            texts.append(summary(members))
    if texts:
        warn_user("\n".join(texts))


def warn_user(text):
    """Warns at the line of the user's code that called the library or Keras."""
    folders = tuple(
        os.path.dirname(sys.modules[name].__file__) + os.sep
        for name in _INNER
        if name in sys.modules
    )
    frame, level = inspect.currentframe().f_back, 2
    while frame.f_back and frame.f_code.co_filename.startswith(folders):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def _unscored(found):
    return (
        f"{len(found)} kernels have no score and are kept as they are "
        f"({_names(found)}): they are 0 in every entry, or flow reaches or "
        "leaves them through such kernels alone. Score after the first steps "
        "of training (`SynFlowPruning(pruning_schedule=...)`), choose with "
        "`prunable=`, or say `on_unscored='keep'`."
    )


def _zeros(found):
    return (
        f"Many weights score exactly 0 in {len(found)} kernels "
        f"({_names(found)}) and are removed first. Usually the input is so "
        "small that they only see padding (say a larger one with `inputs=`), "
        "weights elsewhere are 0, or float32 is too narrow."
    )


def _empty(found):
    return (
        f"All weights of {len(found)} kernels are removed. "
        f"{listed(found, '; ')}"
    )


def _collapse(found):
    return f"Layer collapse: {found[0].text}"


def _names(found):
    return listed(repr(finding.name) for finding in found)


_SUMMARIES = {
    "unscored": _unscored,
    "zeros": _zeros,
    "empty": _empty,
    "collapse": _collapse,
}
