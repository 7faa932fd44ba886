"""``compose``: several transformations as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["compose"]


def compose(*transformations: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns one transformation: ``compose(t1, t2)(f)`` is ``t1(t2(f))``.

    Args:
        transformations: The outermost first: ``xcs.jit``, or one with its arguments, such as
            ``xcs.vmap(in_axes=(0, None))``.

    Raises:
        TypeError: One of them is not callable.

    Example:
        >>> import jax.numpy as jnp
        >>> from ember_xcs import jit, vmap
        >>> print(compose(jit, vmap(in_axes=(0, None)))(jnp.dot)(jnp.ones((2, 3)), jnp.ones(3)))
        [3. 3.]
    """
    for transformation in transformations:
        if not callable(transformation):
            raise TypeError(
                f"compose takes transformations, such as xcs.vmap(in_axes=0), and was given "
                f"{transformation!r}."
            )

    def composed(function: Any) -> Any:
        for transformation in reversed(transformations):
            function = transformation(function)
        return function

    return composed
