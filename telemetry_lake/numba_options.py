"""Options of the modules that are compiled to machine code (numba).

Nothing is allocated in compiled functions (`_nrt`), so that no references are counted, and a division by zero
is not looked for (`error_model`): the caller brings all arrays. The bounds of ranges are an exception.

Compiled code does not check where it reads and writes. With `TELEMETRY_LAKE_CHECKED_KERNELS=1` in the
environment it does: every load and store outside of its array raises IndexError. Tests run the checked
variant, which is three times as slow.

Machine code is kept in `__pycache__`, that of the checked variant apart. It has everything inside that a
function calls, so it is valid as long as no file in the folder of the function has changed: what a compiled
function calls, and the layout of its arrays, must be in its own folder.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numba
import numpy as np
from numba.core import caching, config

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKED_VARIABLE: Final = "TELEMETRY_LAKE_CHECKED_KERNELS"
# Not a setting of the lake: it changes what is compiled while modules are imported, and only tests set it.
CHECKED: Final = os.environ.get(CHECKED_VARIABLE) == "1"  # noqa: TID251
"""Whether compiled code checks that what it reads and writes is inside of its arrays."""

Integer: TypeAlias = int | np.int64
"""A signed 64-bit integer."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: Final[dict[str, Any]] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": CHECKED,
    "_nrt": False,
}


class _OwnVariant:
    """What the two locators have in common. It stands before numba's own in the order of classes."""

    _py_file: str

    def get_cache_path(self) -> str:
        """Return the folder of this variant."""
        path = Path(super().get_cache_path())  # type: ignore[misc]
        return str(path / "checked" if CHECKED else path)

    def get_source_stamp(self) -> str:
        """Return a digest of the sources that the machine code may be made of."""
        return _digest_of_folder(Path(self._py_file).parent)


class KernelCache(_OwnVariant, caching.InTreeCacheLocator):
    """Keeps machine code in `__pycache__` until a file in the folder of its source changes.

    numba's own locator looks at the file of the function alone: code of another file, copied into the
    function, or the place of a column that is written in another file, would stay as it was.
    """


class UserKernelCache(_OwnVariant, caching.UserWideCacheLocator):
    """Keeps it in the user's cache folder, where the folder of the source cannot be written."""


class ArchivedKernelCache(_OwnVariant, caching.ZipCacheLocator):
    """Keeps it there for modules in an archive, which is how jobs on EMR have them."""

    _zip_path: str

    def get_source_stamp(self) -> str:
        """Return a digest of the archive, which is made anew for every change."""
        return _digest_of_archive(Path(self._zip_path))


@cache
def _digest_of_archive(archive: Path) -> str:
    return hashlib.sha256(archive.read_bytes()).hexdigest()


@cache
def _digest_of_folder(folder: Path) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in sorted(folder.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@contextmanager
def _own_caches() -> "Iterator[None]":
    """Make numba take our locators for the functions that are decorated inside."""
    # The module makes its settings of the environment, so type checkers do not see them.
    settings: Any = config
    before = settings.CACHE_LOCATOR_CLASSES
    settings.CACHE_LOCATOR_CLASSES = ",".join(
        f"{locator.__module__}.{locator.__qualname__}"
        for locator in (KernelCache, UserKernelCache, ArchivedKernelCache)
    )
    try:
        yield
    finally:
        settings.CACHE_LOCATOR_CLASSES = before


def compiled(function: _Function) -> _Function:
    """Compile `function` to machine code when it is first called."""
    with _own_caches():
        return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def compiled_in_place(function: _Function) -> _Function:
    """Compile `function` into each compiled function that calls it.

    For what one place calls over and over: each array is ten arguments, which every call would copy.
    """
    with _own_caches():
        return numba.njit(forceinline=True, **_OPTIONS)(function)  # type: ignore[no-any-return]


def compiled_allocating(function: _Function) -> _Function:
    """Compile `function`, which returns an array of its own, when it is first called."""
    with _own_caches():
        return numba.njit(cache=True, boundscheck=CHECKED)(function)  # type: ignore[return-value]
