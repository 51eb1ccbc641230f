"""What the modules that are compiled to machine code (numba) have in common.

Nothing is allocated in compiled functions (`_nrt`), so that no references are counted, and a division by zero
is not looked for (`error_model`): whoever calls them brings all arrays. What was compiled is kept in
`__pycache__`.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba

Text = Any
"""An array of unsigned bytes. numba infers the machine types itself; these names are for readers."""
Array = Any
Arrays = Any
"""A tuple of arrays."""
Position = Any
"""An unsigned integer of 64 bits."""
Integer = Any

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: Final[dict[str, Any]] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
compiled: Final[Callable[[_Function], _Function]] = numba.njit(**_OPTIONS)
compiled_in_place: Final[Callable[[_Function], _Function]] = numba.njit(forceinline=True, **_OPTIONS)
"""For what one place calls over and over: each array is ten arguments, which every call would copy."""
