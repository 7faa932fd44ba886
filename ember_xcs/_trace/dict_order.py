"""Trees whose dicts keep the order of their keys, which JAX sorts.

What an operator writes of a dict, such as a prompt, depends on that order. Keys that cannot be
sorted are no obstacle then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["InOrder", "keeping_order"]


@jax.tree_util.register_pytree_with_keys_class
class InOrder:
    """A dict on its way through JAX; put together again it is a plain dict."""

    __slots__ = ("items",)

    def __init__(self, items: dict[Any, Any]) -> None:
        self.items = items

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        """Returns the items in their order, for JAX."""
        items = [(jax.tree_util.DictKey(key), value) for key, value in self.items.items()]
        return items, tuple(self.items)

    @classmethod
    def tree_unflatten(cls, keys: tuple[Any, ...], children: Any) -> dict[Any, Any]:
        """Returns a plain dict."""
        return dict(zip(keys, children, strict=True))


def keeping_order(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Returns a tree equal to ``tree`` once it has been flattened and put together again.

    Its dicts, in lists, tuples and dicts, have their items in the order that they have now.

    Args:
        tree: The tree.
        is_leaf: Says which containers are leaves, and stay as they are; None: none.

    Example:
        >>> leaves, structure = jax.tree.flatten(keeping_order({"b": 1, "a": [2, 3]}))
        >>> leaves, structure.unflatten(leaves)
        ([1, 2, 3], {'b': 1, 'a': [2, 3]})
    """
    kind = type(tree)
    if is_leaf is not None and is_leaf(tree):
        return tree
    if kind is tuple or kind is list:
        return kind(keeping_order(item, is_leaf) for item in tree) if tree else tree
    if kind is not dict or not tree:
        return tree
    items = {key: keeping_order(value, is_leaf) for key, value in tree.items()}
    return items if _is_sorted(items) else InOrder(items)


def _is_sorted(items: dict[Any, Any]) -> bool:
    keys = list(items)
    try:
        return keys == sorted(keys)
    except TypeError:
        return False
