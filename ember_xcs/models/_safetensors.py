"""safetensors: a header of JSON, and arrays as they are in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ember_xcs.models._weight_files import WeightsInvalid

__all__ = ["safetensors"]

_DTYPES: Final = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4"}


def safetensors(file: Path) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a file by name; the file is mapped, and not read.

    Raises:
        WeightsInvalid: It is not such a file, or has an array of a dtype that is not known here.
    """
    data = np.memmap(file, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        described = {name: part for name, part in header.items() if name != "__metadata__"}
        return {name: _array(data[8 + length :], part) for name, part in described.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsInvalid(
            f"{file.name!r} cannot be read as safetensors, with arrays of the dtypes "
            f"{', '.join(_DTYPES)}. Give a file of that format."
        ) from error


def _array(data: npt.NDArray[np.uint8], part: dict[str, Any]) -> npt.NDArray[Any]:
    begin, end = part["data_offsets"]
    return data[begin:end].view(_DTYPES[part["dtype"]]).reshape(part["shape"])
