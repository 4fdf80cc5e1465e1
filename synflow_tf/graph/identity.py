"""A dict and a set that compare keys with `is`.

Keras variables and tensors have no usable `==` or hash. Their `id` alone is no
key either: once a temporary object is gone, the next one may have the same.
These hold their keys.
"""

import collections.abc


class IdentityDict(collections.abc.MutableMapping):
    """A dict whose keys are objects, compared with `is`.

    Args:
        items: mapping, or iterable of pairs of key and value.
    """

    def __init__(self, items=()):
        self._pairs = {}
        self.update(items)

    def __getitem__(self, key):
        return self._pairs[id(key)][1]

    def __setitem__(self, key, value):
        self._pairs[id(key)] = key, value

    def __delitem__(self, key):
        del self._pairs[id(key)]

    def __contains__(self, key):
        return id(key) in self._pairs

    def __iter__(self):
        return (key for key, _ in self._pairs.values())

    def __len__(self):
        return len(self._pairs)


class IdentitySet(collections.abc.MutableSet):
    """A set of objects, compared with `is`, in the order they came.

    Args:
        items: iterable.
    """

    def __init__(self, items=()):
        self._items = {id(item): item for item in items}

    def __contains__(self, item):
        return id(item) in self._items

    def __iter__(self):
        return iter(self._items.values())

    def __len__(self):
        return len(self._items)

    def add(self, item):
        """Adds an object."""
        self._items[id(item)] = item

    def discard(self, item):
        """Removes an object if it is there."""
        self._items.pop(id(item), None)
