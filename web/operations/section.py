"""The operations page as a section of the web pages."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter

from telemetry_lake.settings import Settings
from telemetry_lake.storage.object_store import ObjectStore
from telemetry_lake.storage.records import RecordStore
from web.analyses.visitors import OPERATIONS, Visitors
from web.layout import Layout, Link
from web.operations.routes import operations_router
from web.operations.runbooks import read_runbooks
from web.operations.watch import Watch


class OperationsSection:
    """What is wrong, since when, and what to do."""

    def __init__(self, settings: Settings, visitors: Visitors) -> None:
        """`visitors` tells who is logged in; there is no other log-in here."""
        self._visitors = visitors
        self._poll_seconds = settings.web.operations_poll_seconds
        self._watch = Watch(settings.web, RecordStore(ObjectStore(settings.s3), settings.s3.lake_bucket))

    @property
    def navigation(self) -> Sequence[Link]:
        """The page."""
        about = "The way of a ping with its figures: what is red, since when, and what to do."
        return (Link("Operations", OPERATIONS, about=about),)

    @property
    def body_limits(self) -> Mapping[str, int]:
        """All requests are small."""
        return {}

    def router(self, layout: Layout) -> APIRouter:
        """Return the routes of the pages."""
        return operations_router(self._watch, self._visitors, layout, read_runbooks(), self._poll_seconds)

    def start(self) -> None:
        """Begin to read the exporter and Prometheus."""
        self._watch.start()

    def stop(self) -> None:
        """Stop that."""
        self._watch.stop()

    def heartbeat(self) -> tuple[bool, dict[str, object]]:
        """Return that it can answer: it does so, too, when what it reads is away; and what is away."""
        look = self._watch.look()
        problems: dict[str, object] = {
            "exporter": look.exporter.problem or None,
            "prometheus": None if look.rules is None else look.rules.problem or None,
        }
        return True, problems
