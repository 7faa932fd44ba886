"""``DeviceMesh``: devices in a grid with named axes, and which of them holds which part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ember_xcs._transforms.mesh_drawing import mesh_svg, sharding_svg
from ember_xcs._transforms.partition_spec import AxisPosition
from ember_xcs.errors import TransformError

__all__ = ["DeviceMesh", "as_mesh", "resolved_spec"]

_NAMES = ("x", "y", "z", "w")


class DeviceMesh:
    """Devices in a grid with named axes: a ``jax.sharding.Mesh`` that is easier to make.

    ``jax_mesh`` is that mesh; JAX chooses how the arrays on it lie where nothing says it.

    Args:
        devices: The devices, in a sequence or an array; None for all of JAX's. Also a
            ``jax.sharding.Mesh``, whose devices and names are taken.
        shape: The size of each axis; one may be -1, for what is left. Also a dict from name to
            size. None: the shape of ``devices``. The first devices are taken, if there are more.
        axis_names: The names of the axes; ``"x"``, ``"y"``, ``"z"``, ``"w"`` by default.

    Raises:
        TransformError: There are too few devices, or names and sizes do not fit together.

    Example:
        >>> mesh = DeviceMesh(shape={"data": -1, "model": 1})
        >>> mesh.axis_names
        ('data', 'model')
    """

    def __init__(
        self,
        devices: Any = None,
        shape: Sequence[int] | Mapping[str, int] | int | None = None,
        axis_names: Sequence[str] | str | None = None,
    ) -> None:
        if isinstance(devices, DeviceMesh):
            devices = devices.jax_mesh
        if isinstance(devices, jax.sharding.Mesh):
            if shape is None and axis_names is None:
                axis_names = devices.axis_names
            devices = devices.devices
        if isinstance(shape, Mapping):
            axis_names, shape = tuple(shape) if axis_names is None else axis_names, shape.values()  # type: ignore[assignment]
        found = _device_array(devices)
        sizes = found.shape if shape is None else _sizes(shape, found.size)
        names = _names(axis_names, len(sizes))
        needed = math.prod(sizes)
        if needed > found.size:
            raise TransformError(
                f"a mesh of shape {dict(zip(names, sizes, strict=True))} needs {needed} devices, "
                f"and there are {found.size}. Make it smaller, or, to try it on a CPU, simulate "
                "devices: set JAX_NUM_CPU_DEVICES before JAX is used."
            )
        grid = found.reshape(-1)[:needed].reshape(sizes)
        # Auto axes, also of a mesh whose axes were Explicit: those refuse plain arrays.
        self.jax_mesh: jax.sharding.Mesh = jax.sharding.Mesh(grid, names)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The names of the axes."""
        return tuple(self.jax_mesh.axis_names)

    @property
    def shape(self) -> dict[str, int]:
        """The size of each axis, by name."""
        return dict(self.jax_mesh.shape)

    @property
    def size(self) -> int:
        """How many devices there are."""
        return int(self.jax_mesh.size)

    @property
    def devices(self) -> np.ndarray[Any, Any]:
        """The devices, in an array of the shape of the mesh."""
        return self.jax_mesh.devices

    def get_device(self, *index: int, **by_name: int) -> jax.Device:
        """Returns the device at an index, given by position or by the names of the axes.

        Raises:
            TransformError: There is no such axis or index.

        Example:
            >>> DeviceMesh(shape=(1,)).get_device(0) == DeviceMesh(shape=(1,)).get_device(x=0)
            True
        """
        if by_name:
            if index:
                raise TransformError("give the index by position or by the names of the axes.")
            self._check_names(by_name)
            index = tuple(by_name.get(name, 0) for name in self.axis_names)
        sizes = tuple(self.shape.values())
        fits = len(index) == len(sizes) and all(map(_is_int, index))
        if not fits or not all(-n <= k < n for k, n in zip(index, sizes, strict=True)):
            raise TransformError(
                f"there is no device at {index} of a mesh of shape {self.shape}: an index has one "
                "number for each axis, from 0 to below its size."
            )
        device: jax.Device = self.devices[index]
        return device

    def get_submesh(self, **indices: int | slice) -> DeviceMesh:
        """Returns the mesh of some of the devices.

        Args:
            indices: For each axis, by name: an int, which removes the axis, or a slice of it.

        Raises:
            TransformError: There is no such axis, or nothing is left of it.

        Example:
            >>> DeviceMesh(shape={"data": 1, "model": 1}).get_submesh(model=0).axis_names
            ('data',)
        """
        self._check_names(indices)
        wrong = {n: k for n, k in indices.items() if not isinstance(k, slice) and not _is_int(k)}
        if wrong:
            raise TransformError(
                f"a submesh of {wrong}: an axis is given as an int, which removes it, or as a "
                "slice, such as slice(0, 2)."
            )
        index = tuple(indices.get(name, slice(None)) for name in self.axis_names)
        names = [n for n, k in zip(self.axis_names, index, strict=True) if isinstance(k, slice)]
        try:
            grid = self.devices[index]
        except IndexError as error:
            raise TransformError(
                f"there is no submesh {indices} of a mesh of shape {self.shape}: {error}."
            ) from None
        if not names or not np.size(grid):
            raise TransformError(
                f"a submesh {indices} of a mesh of shape {self.shape} has no "
                f"{'axis' if not names else 'device'}; leave at least one. One device is "
                "get_device(...)."
            )
        return DeviceMesh(jax.sharding.Mesh(grid, names))

    def _check_names(self, names: Mapping[str, Any]) -> None:
        unknown = names.keys() - set(self.axis_names)
        if unknown:
            raise TransformError(
                f"the mesh has no axis {min(unknown)!r}; its axes are {', '.join(self.axis_names)}."
            )

    def describe(self, spec: Any = None, shape: Sequence[int] | int | None = None) -> str:
        """Returns the mesh as text, or which device holds which part of an array.

        Args:
            spec: How the array is cut, a ``PartitionSpec``; integers name axes by position. None
                with a shape: each device has the whole array.
            shape: The shape of the array.

        Example:
            >>> print(DeviceMesh(shape=(1,)).describe(jax.P("x"), (4, 2)))
            array of shape (4, 2), cut by P('x',), on a mesh of x=1
            device 0 (x=0): [0:4, 0:2]
        """
        axes = ", ".join(f"{name}={size}" for name, size in self.shape.items())
        parts: Mapping[Any, str] = {}
        if spec is None and shape is None:
            rows = [f"mesh of {axes}, {self.devices.flat[0].platform}"]
        else:
            parts = self._parts(spec, shape)
            cut = _shown(resolved_spec(spec, self))
            rows = [f"array of shape {_shape(shape)}, cut by {cut}, on a mesh of {axes}"]
        for index in np.ndindex(self.devices.shape):
            device: Any = self.devices[index]
            named = zip(self.axis_names, index, strict=True)
            where = ", ".join(f"{name}={k}" for name, k in named)
            part = f": {parts[device]}" if parts else ""
            rows.append(f"device {device.id} ({where}){part}")
        return "\n".join(rows)

    def _parts(self, spec: Any, shape: Sequence[int] | int | None) -> dict[Any, str]:
        slices = self.parts(spec, shape)
        return {
            device: "[" + ", ".join(f"{a}:{b}" for a, b in bounds) + "]"
            for device, bounds in slices.items()
        }

    def parts(
        self, spec: Any, shape: Sequence[int] | int | None
    ) -> dict[Any, list[tuple[int, int]]]:
        """Returns, for each device, where its part of an array begins and ends along each axis.

        Args:
            spec: How the array is cut, a ``PartitionSpec``.
            shape: The shape of the array.

        Raises:
            TransformError: The array cannot be cut so.
        """
        shape = _shape(shape)
        cut = resolved_spec(spec, self)
        if len(cut) > len(shape):
            raise TransformError(
                f"an array of shape {shape} has {len(shape)} axes, and {_shown(cut)} is for "
                f"{len(cut)}. Give one entry for each axis, or fewer."
            )
        sharding = jax.sharding.NamedSharding(self.jax_mesh, cut)
        try:
            found = sharding.devices_indices_map(shape)
        except ValueError as error:
            raise TransformError(f"an array of shape {shape} is not cut so: {error}") from None
        return {
            device: [part.indices(n)[:2] for part, n in zip(index, shape, strict=True)]
            for device, index in found.items()
        }

    def to_svg(self, spec: Any = None, shape: Sequence[int] | int | None = None) -> str:
        """Returns a picture of the mesh, or of which device holds which part of an array.

        Args:
            spec: How the array is cut; None for the mesh itself.
            shape: The shape of the array; its first two axes are drawn.
        """
        if spec is None and shape is None:
            return mesh_svg(self.devices, self.shape)
        return sharding_svg(self.parts(spec, shape), _shape(shape))

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeviceMesh) and self.jax_mesh == other.jax_mesh

    def __hash__(self) -> int:
        return hash(self.jax_mesh)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}={size}" for name, size in self.shape.items())
        return f"DeviceMesh({axes})"


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _shape(shape: Sequence[int] | int | None) -> tuple[int, ...]:
    if shape is None:
        raise TransformError("give the shape of the array that spec is to cut: shape=(8, 4).")
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _device_array(devices: Any) -> np.ndarray[Any, Any]:
    found = np.array(jax.devices() if devices is None else devices, object)
    is_list = found.ndim > 0 and found.size > 0
    if not is_list or not all(isinstance(device, jax.Device) for device in found.flat):
        raise TransformError(
            f"devices={devices!r} is to be a sequence of devices, such as jax.devices()[:4], or "
            "a jax.sharding.Mesh."
        )
    if len(set(found.flat)) < found.size:
        raise TransformError(f"devices={devices!r} names a device twice. Name each once.")
    return found


def _sizes(shape: Any, available: int) -> tuple[int, ...]:
    sizes = (shape,) if _is_int(shape) else tuple(shape)
    are_sizes = bool(sizes) and all(_is_int(n) and (n > 0 or n == -1) for n in sizes)
    if not are_sizes or sizes.count(-1) > 1:
        raise TransformError(
            f"shape={sizes!r} is to have the size of each axis, an int of at least 1; one of them "
            "may be -1, for what is left."
        )
    given = math.prod(n for n in sizes if n != -1)
    if -1 in sizes and given <= available and available % given:
        raise TransformError(
            f"shape={sizes!r} leaves an axis open, and {available} devices do not divide by "
            f"{given}. Give each size, or devices=jax.devices()[:{available - available % given}]."
        )
    rest = max(available // given, 1)
    return tuple(rest if n == -1 else int(n) for n in sizes)


def _names(names: Sequence[str] | str | None, count: int) -> tuple[str, ...]:
    if names is None:
        return (*_NAMES, *(f"axis{k}" for k in range(len(_NAMES), count)))[:count]
    found = (names,) if isinstance(names, str) else tuple(names)
    are_names = all(isinstance(name, str) for name in found)
    if not are_names or len(found) != count or len(set(found)) != count:
        raise TransformError(
            f"axis_names={found!r} is to have one str, all different, for each of the {count} "
            f"{'axis' if count == 1 else 'axes'} of the mesh."
        )
    return found


def as_mesh(mesh: Any) -> DeviceMesh:
    """Returns a ``DeviceMesh`` from one, or from a ``jax.sharding.Mesh``.

    Raises:
        TransformError: It is neither.
    """
    if isinstance(mesh, DeviceMesh):
        return mesh
    if isinstance(mesh, jax.sharding.Mesh):
        return DeviceMesh(mesh)
    raise TransformError(f"mesh={mesh!r} is to be an xcs.DeviceMesh or a jax.sharding.Mesh.")


def resolved_spec(spec: Any, mesh: DeviceMesh) -> jax.sharding.PartitionSpec:
    """Returns a spec with names alone, from one that may name axes by position.

    Raises:
        TransformError: It is no ``PartitionSpec``, or names an axis that the mesh does not have.

    Example:
        >>> from ember_xcs import PartitionSpec
        >>> resolved_spec(PartitionSpec(0, None), DeviceMesh(shape={"data": 1}))
        P('data', None)
    """
    if spec is None:
        return jax.sharding.PartitionSpec()
    if not isinstance(spec, jax.sharding.PartitionSpec):
        raise TransformError(f"{spec!r} is no PartitionSpec: write xcs.PartitionSpec('x', None).")
    entries = [_resolved_entry(entry, spec, mesh) for entry in spec]
    used = [name for entry in entries for name in _names_of(entry)]
    if len(set(used)) != len(used):
        raise TransformError(
            f"{_shown(spec)} names mesh axis {max(used, key=used.count)!r} twice: one axis of "
            "devices cuts one axis of an array."
        )
    return jax.sharding.PartitionSpec(*entries)


def _resolved_entry(entry: Any, spec: Any, mesh: DeviceMesh) -> Any:
    if isinstance(entry, tuple | list):
        return tuple(_resolved_name(name, spec, mesh) for name in entry)
    return None if entry is None else _resolved_name(entry, spec, mesh)


def _resolved_name(name: Any, spec: Any, mesh: DeviceMesh) -> str:
    names = mesh.axis_names
    position = name.index if isinstance(name, AxisPosition) else name
    if _is_int(position) and -len(names) <= position < len(names):
        return names[position]
    if name in names:
        return str(name)
    raise TransformError(
        f"{_shown(spec)} names mesh axis {name!r}, and the mesh has the axes "
        f"{', '.join(f'{n!r} (size {size})' for n, size in mesh.shape.items())}. Name one of "
        f"these, by name or position (0 to {len(names) - 1})."
    )


def _names_of(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _shown(spec: Any) -> str:
    return "P" + repr(tuple(spec))
