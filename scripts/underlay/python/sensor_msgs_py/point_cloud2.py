# SPDX-License-Identifier: Apache-2.0
"""Between numpy's arrays and PointCloud2, with the public API of the real module.

Kept with it is what surprises in it: the first axis of an organised array is the width.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

DUMMY_FIELD_PREFIX = "unnamed_field"
_DATATYPES: dict[int, np.dtype[Any]] = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype[Any]:
    """Return the structured type of a point; a field of several numbers becomes several."""
    names, offsets, formats = [], [], []
    for index, field in enumerate(fields):
        assert field.count > 0, "Can't process fields with count = 0."
        kind = _DATATYPES[field.datatype]
        name = field.name or f"{DUMMY_FIELD_PREFIX}_{index}"
        for number in range(field.count):
            names.append(f"{name}_{number}" if field.count > 1 else name)
            offsets.append(field.offset + number * kind.itemsize)
            formats.append(kind.str)
    assert len(set(names)) == len(names), "Duplicate field names are not allowed!"
    layout: Any = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    found: np.dtype[Any] = np.dtype(layout)
    return found


def create_cloud(
    header: Header,
    fields: Sequence[PointField],
    points: Iterable[Any],
    point_step: int | None = None,
) -> PointCloud2:
    """Return a cloud; ``points`` are an array, structured or of one type, or rows of numbers."""
    rows = _structured(fields, points, point_step)
    assert rows.ndim <= 2, "Points can only be organized in max. two dimensional space"
    width = rows.shape[0]
    cloud = PointCloud2(
        header=header,
        height=rows.shape[1] if rows.ndim == 2 else 1,
        width=width,
        is_dense=False,
        is_bigendian=sys.byteorder != "little",
        fields=fields,
        point_step=rows.dtype.itemsize,
        row_step=rows.dtype.itemsize * width,
    )
    data = array("B")
    data.frombytes(memoryview(rows.data).cast("B"))
    # By the attribute: the constructor copies number by number in some distributions.
    cloud.data = data
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable[Any]) -> PointCloud2:
    """Return a cloud of three float32 a point."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)


def read_points(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[Any]:
    """Return the points of a cloud as a structured array."""
    assert isinstance(cloud, PointCloud2), "Cloud is not a sensor_msgs.msg.PointCloud2"
    points: NDArray[Any] = np.ndarray(
        (cloud.width * cloud.height,),
        dtype_from_fields(cloud.fields, cloud.point_step),
        buffer=cloud.data,
    )
    if field_names is not None:
        assert set(field_names) <= set(points.dtype.names or ()), (
            "Requests field is not in the fields of the PointCloud!"
        )
        points = points[list(field_names)]
    if (sys.byteorder != "little") != bool(cloud.is_bigendian):
        points = points.byteswap(inplace=True)
    if skip_nans and not cloud.is_dense:
        known = np.ones(len(points), bool)
        for name in points.dtype.names or ():
            known &= ~np.isnan(points[name])
        points = points[known]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> NDArray[Any]:
    """Return the points of a cloud whose fields have one type, [points, fields]."""
    kinds = {
        field.datatype for field in cloud.fields if not field_names or field.name in field_names
    }
    assert len(kinds) <= 1, "All fields need to have the same datatype."
    return structured_to_unstructured(
        read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    )


def read_points_list(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
) -> list[Any]:
    """Return the points of a cloud as named tuples."""
    names = [field.name for field in cloud.fields] if field_names is None else field_names
    point = NamedTuple("Point", [(name, Any) for name in names])  # type: ignore[misc]
    return [point(*each) for each in read_points(cloud, names, skip_nans, uvs)]


def _structured(
    fields: Sequence[PointField], points: Iterable[Any], point_step: int | None
) -> NDArray[Any]:
    kind = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        return np.array([tuple(each) for each in points], kind)
    if points.dtype.names is None:
        assert len({field.datatype for field in fields}) == 1, (
            "All fields need to have the same datatype. Pass a structured NumPy array with "
            "multiple dtypes otherwise."
        )
        return unstructured_to_structured(points, dtype=kind)
    assert points.dtype == kind, "PointFields and structured NumPy array dtype do not match"
    return points
