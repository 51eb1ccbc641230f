"""Objects of a run as bytes, on their way between its processes: the one place that unpickles.

What is unpickled was pickled by a process of the same run: tasks, summaries, keys, values and records of
output. They travel through Spark and its files only, and nothing that a client sent is ever unpickled; who
could change them on their way could change the script as well.
"""

import pickle
from typing import Any


def pickled(value: object) -> bytes:
    """Return an object as bytes.

    Raises what its class raises when it cannot be pickled, for example pickle.PicklingError.
    """
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpickled(content: bytes) -> Any:
    """Return the object of which `pickled` made these bytes."""
    return pickle.loads(content)  # noqa: S301 (made by a process of this run)
