"""People of the analysis service, and a script of theirs."""

from typing import Final

from telemetry_lake.analysis_jobs.people import Person

ANN: Final = Person("ann", frozenset({"metrics"}))
BOB: Final = Person("bob")
CAT: Final = Person("cat", frozenset({"metrics"}))
ADMIN: Final = Person("admin", is_admin=True)
SCRIPT: Final = b"def map(key, dimensions, value, context):\n    context.write(dimensions[1], 1)\n"
