"""Masks: a validated mapping from the path of a weight to 0 and 1."""

import collections.abc
import typing

import numpy as np

from synflow_tf import enforce
from synflow_tf import findings as findings_lib
from synflow_tf import mask_files
from synflow_tf.enforce import constraint as constraint_lib
from synflow_tf.graph import selection
from synflow_tf.graph import variables


class Round(typing.NamedTuple):
    """What one round of iterative pruning did.

    Attributes:
        density: float in (0, 1], the fraction asked to be kept after it.
        kept: int, the number of weights kept after it.
        log10_flow: float, log10 of the flow R that it scored with, before its
            removals; -inf for no flow, nan if the criterion knows none.
    """

    density: float
    kept: int
    log10_flow: float


class Masks(collections.abc.Mapping):
    """Masks of a model's prunable weights, by path.

    A mapping from weight path to a read-only bool array of the weight's shape:
    True is kept, False is removed. In the order of `model.weights`.

    Args:
        masks: mapping of str to array of bool, or of the numbers 0 and 1.
        history: iterable of `Round`, how they came about.
        log10_flow: float, log10 of the flow R of the masked model.
        findings: iterable of `Finding`, what a report should say.

    Attributes:
        history: tuple of `Round`.
        log10_flow: float; -inf for no flow, nan if not known.
        findings: tuple of `Finding`: weights without scores, scales that
            counted as ones, kernels that are empty.

    Raises:
        ValueError: if there is no mask, or one has values other than 0 and 1.

    >>> masks = synflow_tf.Masks({"dense/kernel": [[1, 0], [0, 0]]})
    >>> masks.sparsity, masks.density, masks.compression
    (0.75, 0.25, 4.0)
    """

    def __init__(self, masks, history=(), log10_flow=float("nan"), findings=()):
        if not isinstance(masks, collections.abc.Mapping) or not masks:
            raise ValueError(
                "Argument `masks` must be a mapping of weight path to mask, "
                f"with at least one mask. Received: masks={masks!r}"
            )
        self._masks = {
            path: _validated(path, mask) for path, mask in masks.items()
        }
        self.history = tuple(Round(*entry) for entry in history)
        self.log10_flow = float(log10_flow)
        self.findings = tuple(findings_lib.Finding(*f) for f in findings)

    def __getitem__(self, path):
        return self._masks[path]

    def __iter__(self):
        return iter(self._masks)

    def __len__(self):
        return len(self._masks)

    def __eq__(self, other):
        if not isinstance(other, Masks):
            return NotImplemented
        return list(self) == list(other) and all(
            np.array_equal(self[path], other[path]) for path in self
        )

    __hash__ = None

    @property
    def size(self):
        """Returns the number of prunable weights, an int."""
        return sum(mask.size for mask in self.values())

    @property
    def kept(self):
        """Returns the number of weights kept, an int."""
        return sum(int(np.count_nonzero(mask)) for mask in self.values())

    @property
    def density(self):
        """Returns the fraction kept, a float."""
        return self.kept / self.size

    @property
    def sparsity(self):
        """Returns the fraction removed, a float."""
        return (self.size - self.kept) / self.size

    @property
    def compression(self):
        """Returns prunable over kept weights, a float; inf if none is kept."""
        return self.size / self.kept if self.kept else float("inf")

    def apply(self, model):
        """Sets the removed weights of a model to 0, once.

        Args:
            model: a built model of either Keras line, with a weight of the
                same path and shape for each mask.

        Returns:
            `model`.

        Raises:
            ValueError: if the masks are not of this model; it is unchanged.
        """
        for weight, mask in self._pairs(model):
            constraint_lib.zero(weight.variable, mask)
        return model

    def enforce(self, model, optimizer=None):
        """Sets the removed weights to 0 and keeps them 0 during training.

        Every optimizer update is followed by the mask, inside the training
        step, by a constraint on the variable; a constraint that is there
        already is applied first. The optimizers that the model is compiled
        with, before or after, see 0 as the gradients of removed weights, so
        that norms and moments are those of the weights that are kept. Saved
        files contain neither: enforce again after loading.

        Args:
            model: see `apply`; compiled or not, trained before or not. If it
                is trained as part of another model that has been trained
                before, compile that one again.
            optimizer: an optimizer that trains the model in another way: in a
                loop of your own, or as part of another model. Enforce before
                the first call of a step that is a `tf.function`.

        Returns:
            `model`.

        Raises:
            TypeError: if `optimizer` is not an optimizer; the model is
                unchanged.
            ValueError: if the masks are not of this model, or not those of
                the other workers of its `MultiWorkerMirroredStrategy`; it is
                unchanged.
            RuntimeError: if this version of Keras does not keep what is set
                on variables and optimizers; the model is unchanged.
        """
        enforce.enforce_masks(model, self._pairs(model), optimizer)
        return model

    def release(self, model, optimizer=None):
        """Ends `enforce`: gives the weights their own constraints back.

        The removed weights are 0 until training changes them.

        Args:
            model: see `apply`.
            optimizer: the one given to `enforce`, or None.

        Returns:
            `model`.

        Raises:
            TypeError: see `enforce`.
            ValueError: if the masks are not of this model; it is unchanged.
        """
        enforce.release_masks(model, self._pairs(model), optimizer)
        return model

    def check(self, model):
        """Raises ValueError unless a model has a weight for each mask."""
        self._pairs(model)

    def _pairs(self, model):
        weights = {w.path: w for w in variables.weights(model)}
        for path, mask in self.items():
            wrong = (
                f"no weight {path!r}. It has {', '.join(map(repr, weights))}."
            )
            if path in weights and weights[path].shape == mask.shape:
                continue
            if path in weights:
                wrong = (
                    f"a weight {path!r} of shape {weights[path].shape}; its "
                    f"mask has {mask.shape}."
                )
            raise ValueError(
                "Argument `model` must be the model that the masks are of. "
                f"Received: model={model.name!r}, which has {wrong}"
            )
        return [(weights[path], mask) for path, mask in self.items()]

    @classmethod
    def from_model(cls, model, prunable=None, inputs=None):
        """Reads masks back from the zeros of a pruned model.

        Args:
            model: a built model of either Keras line.
            prunable: which weights; see `prune`.
            inputs: an example batch, or specs; see `prune`.

        Returns:
            `Masks`, False exactly where a weight is 0.

        Raises:
            ValueError: if no weight is selected.
        """
        return of_zeros(selection.select(model, prunable, inputs))

    @classmethod
    def enforced(cls, model):
        """Returns the masks that a model is held to.

        By `enforce`, or, in a model of tfmot, by the pruning wrappers.

        Args:
            model: a built model of either Keras line.

        Returns:
            `Masks`, or None if no weight has one.
        """
        masks = {
            w.path: constraint_lib.mask_of(w) for w in variables.weights(model)
        }
        masks = {path: m for path, m in masks.items() if m is not None}
        return cls(masks) if masks else None

    def save(self, path):
        """Writes the masks, one bit for each weight, and their history.

        Args:
            path: str or `os.PathLike`, the file; a NumPy npz archive without
                pickled objects, under exactly this name.
        """
        meta = {
            "history": self.history,
            "log10_flow": self.log10_flow,
            "findings": self.findings,
        }
        mask_files.write(path, self, meta)

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Args:
            path: str or `os.PathLike`, the file.

        Returns:
            `Masks`.

        Raises:
            ValueError: if the file is not one of masks, or is truncated.
            OSError: if it cannot be read.
        """
        masks, meta = mask_files.read(path)
        findings = meta.get("findings", ())
        return cls(masks, meta["history"], meta["log10_flow"], findings)

    def __repr__(self):
        return (
            f"<Masks of {len(self)} weights: {self.kept:,} of {self.size:,} "
            f"kept, sparsity {self.sparsity:.6g}>"
        )

    def __str__(self):
        """Formats a table: a line for each weight and all, and findings."""
        rows = [
            (path, str(mask.shape), np.count_nonzero(mask), mask.size)
            for path, mask in self.items()
        ]
        rows.append(("all", "", self.kept, self.size))
        paths = max(len("weight"), *(len(row[0]) for row in rows))
        shapes = max(len("shape"), *(len(row[1]) for row in rows))
        head = f"{'weight':{paths}}  {'shape':{shapes}}"
        lines = [f"{head} {'kept':>12} {'of':>12} {'density':>9}"]
        for path, shape, kept, size in rows:
            lines.append(
                f"{path:{paths}}  {shape:{shapes}} {kept:12,} {size:12,} "
                f"{kept / size:9.3%}"
            )
        lines.insert(-1, "-" * len(lines[0]))
        lines += map(str, self.findings)
        return "\n".join(lines)


def of_zeros(weights):
    """Returns the `Masks` of some `Weight`s: False exactly where they are 0."""
    return Masks(
        {w.path: variables.value(w.variable).numpy() != 0 for w in weights}
    )


def _validated(path, mask):
    array = np.asarray(mask)
    if array.dtype != bool:
        if not np.isin(array, (0, 1)).all():
            raise ValueError(
                "Argument `masks` must have the values 0 (removed) and 1 "
                f"(kept) only. Received: other values in the mask of {path!r}"
            )
    array = array.astype(bool)
    array.flags.writeable = False
    return array
