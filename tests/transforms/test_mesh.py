"""``DeviceMesh`` and ``PartitionSpec``."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest

import ember_xcs as xcs
from ember_xcs import DeviceMesh, PartitionSpec

DEVICES = jax.devices()
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def mesh() -> DeviceMesh:
    return DeviceMesh(shape={"data": 2, "model": 4})


# ----------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, {"x": 8}),
        ({"shape": 4}, {"x": 4}),
        ({"shape": (2, 4)}, {"x": 2, "y": 4}),
        ({"shape": (2, 2, 2)}, {"x": 2, "y": 2, "z": 2}),
        ({"shape": (np.int64(2), -1)}, {"x": 2, "y": 4}),
        ({"shape": {"data": -1, "model": 2}}, {"data": 4, "model": 2}),
        ({"shape": {"a": 2, "b": 4}, "axis_names": ("p", "q")}, {"p": 2, "q": 4}),
        ({"shape": (8,), "axis_names": "data"}, {"data": 8}),
        ({"devices": DEVICES[:3]}, {"x": 3}),
        ({"devices": DEVICES[:3], "shape": (1, -1)}, {"x": 1, "y": 3}),
        ({"devices": np.array(DEVICES).reshape(4, 2)}, {"x": 4, "y": 2}),
    ],
)
def test_shape_and_names(settings, shape) -> None:
    assert DeviceMesh(**settings).shape == shape


def test_devices_fill_the_mesh_in_order_and_the_first_are_taken() -> None:
    found = DeviceMesh(DEVICES[1:], (2, 3)).devices
    assert found.tolist() == [DEVICES[1:4], DEVICES[4:7]]


def test_a_jax_mesh_is_taken_as_it_is() -> None:
    given = jax.sharding.Mesh(np.array(DEVICES).reshape(2, 4), ("r", "c"))
    assert DeviceMesh(given).jax_mesh == given
    assert DeviceMesh(DeviceMesh(given)).jax_mesh == given
    assert DeviceMesh(given, shape=(4, 2)).shape == {"x": 4, "y": 2}


def test_explicit_axes_become_auto() -> None:
    found = DeviceMesh(jax.make_mesh((8,), ("x",))).jax_mesh
    assert set(found.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (16,)}, "needs 16 devices, and there are 8"),
        ({"shape": (16, -1)}, "needs 16 devices, and there are 8"),
        ({"shape": (3, -1)}, "8 devices do not divide by 3"),
        ({"shape": (-1, -1)}, "one of them may be -1"),
        ({"shape": ()}, "at least 1"),
        ({"shape": (0, 8)}, "at least 1"),
        ({"shape": (True, 8)}, "at least 1"),
        ({"shape": (2.0, 4)}, "at least 1"),
        ({"shape": (2, 4), "axis_names": ("a",)}, "each of the 2 axes"),
        ({"shape": (2, 4), "axis_names": ("a", "a")}, "all different"),
        ({"shape": (2, 4), "axis_names": (0, 1)}, "one str"),
        ({"devices": []}, "a sequence of devices"),
        ({"devices": 3}, "a sequence of devices"),
        ({"devices": [1, 2]}, "a sequence of devices"),
        ({"devices": [DEVICES[0], DEVICES[0]]}, "names a device twice"),
    ],
)
def test_what_is_no_mesh_is_refused(settings, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        DeviceMesh(**settings)


def test_meshes_of_the_same_devices_and_names_are_equal(mesh) -> None:
    again = DeviceMesh(shape={"data": 2, "model": 4})
    assert (mesh, hash(mesh)) == (again, hash(again))
    assert mesh != DeviceMesh(shape=(2, 4))
    assert mesh != mesh.jax_mesh


# -------------------------------------------------------------------------- parts of a mesh


def test_get_device_by_position_by_name_and_from_the_end(mesh) -> None:
    assert mesh.get_device(1, 2) == DEVICES[6]
    assert mesh.get_device(model=2, data=1) == DEVICES[6]
    assert mesh.get_device(model=2) == DEVICES[2]
    assert mesh.get_device(-1, -1) == DEVICES[7]


@pytest.mark.parametrize("index", [(2, 0), (0, 4), (0,), (0, 0, 0), (1.0, 0), (True, 0)])
def test_get_device_refuses_an_index_that_is_not_there(mesh, index) -> None:
    with pytest.raises(xcs.TransformError, match="there is no device at"):
        mesh.get_device(*index)


def test_get_device_refuses_a_name_that_is_not_there(mesh) -> None:
    with pytest.raises(xcs.TransformError, match="no axis 'foo'; its axes are data, model"):
        mesh.get_device(foo=1)
    with pytest.raises(xcs.TransformError, match="by position or by the names"):
        mesh.get_device(1, model=1)


def test_a_submesh_has_the_devices_of_the_index(mesh) -> None:
    row = mesh.get_submesh(data=1)
    assert (row.shape, row.devices.tolist()) == ({"model": 4}, DEVICES[4:])
    part = mesh.get_submesh(model=slice(1, 3))
    assert part.shape == {"data": 2, "model": 2}
    assert part.devices.tolist() == [DEVICES[1:3], DEVICES[5:7]]
    assert mesh.get_submesh() == mesh


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ({"data": 0, "model": 0}, "has no axis"),
        ({"model": slice(3, 3)}, "has no device"),
        ({"data": 5}, "out of bounds"),
        ({"foo": 0}, "no axis 'foo'"),
        ({"model": [0, 2]}, "as an int"),
        ({"model": None}, "as an int"),
    ],
)
def test_a_submesh_that_is_none_is_refused(mesh, indices, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh.get_submesh(**indices)


# ---------------------------------------------------------------------------- PartitionSpec


def test_a_spec_is_jax_own() -> None:
    assert PartitionSpec("x", None, ("y", "z")) == jax.P("x", None, ("y", "z"))
    assert isinstance(jax.P("x"), PartitionSpec)
    assert isinstance(PartitionSpec(0), jax.sharding.PartitionSpec)


def test_positions_are_kept_and_compare() -> None:
    assert PartitionSpec(0) == PartitionSpec(np.int64(0))
    assert PartitionSpec(0) != PartitionSpec()
    assert PartitionSpec(0) != PartitionSpec(1)
    assert repr(PartitionSpec(None, (0, 1))) == "P(None, (0, 1))"


# -------------------------------------------------------------------- who holds which part


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (jax.P("data", "model"), (4, 8)),
        (jax.P("model"), (8, 3)),
        (jax.P(None, ("data", "model")), (2, 16)),
        (jax.P(("model", "data")), (8,)),
        (jax.P(), (3, 3)),
    ],
)
def test_parts_are_those_of_an_array_that_is_put_there(mesh, spec, shape) -> None:
    array = jax.device_put(np.zeros(shape), jax.sharding.NamedSharding(mesh.jax_mesh, spec))
    expected = {
        shard.device: [part.indices(n)[:2] for part, n in zip(shard.index, shape, strict=True)]
        for shard in array.addressable_shards
    }
    assert mesh.parts(spec, shape) == expected


def test_describe_of_the_mesh_and_of_an_array(mesh) -> None:
    assert mesh.describe().splitlines()[:2] == [
        "mesh of data=2, model=4, cpu",
        "device 0 (data=0, model=0)",
    ]
    lines = mesh.describe(PartitionSpec(1, 0), (8, 4)).splitlines()
    assert (
        lines[0] == "array of shape (8, 4), cut by P('model', 'data'), on a mesh of data=2, model=4"
    )
    assert lines[6] == "device 5 (data=1, model=1): [2:4, 2:4]"
    assert mesh.describe(shape=4).splitlines()[-1] == "device 7 (data=1, model=3): [0:4]"


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (PartitionSpec("data"), None, "give the shape"),
        (PartitionSpec("data"), (3,), r"an array of shape \(3,\) is not cut so"),
        (PartitionSpec("data", "model"), (4,), "has 1 axes, and P.* is for 2"),
        (PartitionSpec("foo"), (4,), "names mesh axis 'foo', and the mesh has the axes 'data'"),
        (PartitionSpec(2), (4,), "names mesh axis 2"),
        (PartitionSpec(True), (4,), "names mesh axis True"),
        (PartitionSpec(0, "data"), (4, 4), "names mesh axis 'data' twice"),
        ("data", (4,), "is no PartitionSpec"),
    ],
)
def test_what_cannot_be_cut_is_refused(mesh, spec, shape, message) -> None:
    with pytest.raises(xcs.TransformError, match=message):
        mesh.describe(spec, shape)


# --------------------------------------------------------------------------------- pictures


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [tuple(float(box.attrib[k]) for k in ("x", "y", "width", "height")) for box in found]


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def pictures() -> dict[str, str]:
    flat, grid, cube = DeviceMesh(), DeviceMesh(shape=(2, 4)), DeviceMesh(shape=(2, 2, 2))
    return {
        "a row": flat.to_svg(),
        "a grid": grid.to_svg(),
        "a cube": cube.to_svg(),
        "a name with marks": DeviceMesh(axis_names=("a<&>",)).to_svg(),
        "cut both ways": grid.to_svg(PartitionSpec("x", "y"), (4, 8)),
        "cut along the second axis": flat.to_svg(PartitionSpec(None, "x"), (4, 8)),
        "copies": grid.to_svg(PartitionSpec("y"), (8,)),
        "all have all": flat.to_svg(shape=(4, 8)),
        "a scalar": flat.to_svg(shape=()),
        "a third axis": cube.to_svg(PartitionSpec("x", None, "y"), (2, 3, 4)),
        "large": grid.to_svg(PartitionSpec("x", "y"), (1_000_000, 4_096_000)),
    }


@pytest.mark.parametrize("name", pictures())
def test_pictures_keep_their_parts_apart_and_within(name) -> None:
    svg = pictures()[name]
    _, _, width, height = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split())
    found = boxes(svg)
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in found)
    for (x, y, w, h), (u, v, *_) in itertools.combinations(found, 2):
        assert abs(x - u) >= w or abs(y - v) >= h


@pytest.mark.parametrize("name", pictures())
def test_text_fits_in_the_boxes_of_pictures(name) -> None:
    root = ElementTree.fromstring(pictures()[name])
    _, _, *size = map(float, root.attrib["viewBox"].split())
    room = {"rect": 0.0}
    for element in root:
        if element.tag == f"{SVG}rect":
            room["rect"] = float(element.attrib["width"])
            continue
        is_turned = "transform" in element.attrib
        least = room["rect"] or (size[1] if is_turned else size[0])
        # 0.6 of its size is wide for a letter of a plain font
        assert len(element.text or "") * float(element.attrib["font-size"]) * 0.6 <= least


def test_a_picture_of_the_mesh_has_each_device_once() -> None:
    labels = [text for text in texts(DeviceMesh(shape=(2, 4)).to_svg()) if "device" in text]
    assert labels == [f"device {device.id}" for device in DEVICES]


def test_a_picture_of_an_array_has_its_parts_and_who_holds_them() -> None:
    found = texts(DeviceMesh(shape=(2, 4)).to_svg(PartitionSpec("y"), (8, 3)))
    assert [text for text in found if text.startswith("[")] == [
        f"[{k}:{k + 2}, 0:3]" for k in (0, 2, 4, 6)
    ]
    assert "devices 1, 5" in found


def test_a_notebook_shows_the_picture(mesh) -> None:
    assert mesh._repr_svg_() == mesh.to_svg()
