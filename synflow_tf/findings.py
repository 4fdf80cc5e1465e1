"""What is worth telling about a model: neither an error nor nothing."""

import typing


class Finding(typing.NamedTuple):
    """Something about one weight or layer that a report should say.

    Attributes:
        kind: str. "scale": a scale of zeros, with which training starts, counts
            as ones. "unscored": a weight through which no flow passes is kept
            as it is. "zeros": many
            weights of a kernel score exactly 0. "unstructured": N of M does
            not fit a kernel, which is kept as it is. "empty": all weights of a
            kernel are removed, and other paths carry the flow.
        name: str, the path of the weight, or the name of the layer.
        text: str, what there is to say.
    """

    kind: str
    name: str
    text: str

    def __str__(self):
        return f"{self.name}: {self.text}"
