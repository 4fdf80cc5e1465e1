"""Registers the layers that stay one node: those that have a rule of their own.

`linearize.registry` adds them. Reading a model needs to know which they are,
and not what their rules do.
"""

_CLASSES = set()
# Types of operations whose rule is a user's: no pass looks into them.
OPERATIONS = set()


def add(cls):
    """Lets layers of a class stay one node."""
    _CLASSES.add(cls)


def class_of(layer):
    """Returns the class in whose place a layer stays one node, or None.

    A subclass counts as its base unless it has a `call` of its own.
    """
    cls = type(layer)
    for base in cls.__mro__:
        same = getattr(cls, "call", None) is getattr(base, "call", None)
        if same and base in _CLASSES:
            return base
    return None


def is_leaf(layer):
    """Returns whether a layer stays one node."""
    return class_of(layer) is not None
