"""Which fields of a document become which columns: what a schema says under `x-telemetry-lake`."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from telemetry_lake import columns

Pointer = Annotated[str, Field(pattern=r"^(/[^/~,=]+)+$")]
"""A JSON Pointer (RFC 6901) without escapes."""

EXTRACTED_COLUMNS: Final = (
    columns.DOCUMENT_ID,
    columns.DOCUMENT_TYPE,
    columns.DOCUMENT_VERSION,
    columns.REASON,
    columns.APP_NAME,
    columns.APP_UPDATE_CHANNEL,
    columns.APP_VERSION,
    columns.APP_BUILD_ID,
    columns.OS,
    columns.OS_VERSION,
    columns.ARCHITECTURE,
    columns.CLIENT_ID,
)
"""The columns that a field of a document can fill, in the order in which their values are handed on."""


class HistogramPlaces(BaseModel):
    """Where a document keeps its histograms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["firefox", "glean"] = "firefox"
    """Whose histograms they are: Firefox's, or distributions of Glean, of which only `inside` can be said."""
    inside: Pointer | None = None
    """The object that has `histograms` and `keyedHistograms` (and `processes`), or `timing_distribution` and
    its like; the document without it."""
    processes: bool = False
    """Whether `processes/<process>/` holds further `histograms` and `keyedHistograms`."""
    revision: Pointer | None = None
    """The field that names the revision of Firefox, whose definitions say what the histograms are."""
    definitions_required: bool = False
    """Reject pings whose definitions are not available; otherwise each histogram's own range counts."""


class Extraction(BaseModel):
    """What `x-telemetry-lake` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, tuple[Pointer, ...]] = {}
    """For a column the fields that can fill it; the first one that is present and not null fills it."""
    constants: dict[str, str] = {}
    """Columns that have the same value in every document of the type."""
    histograms: HistogramPlaces | None = None
    only_with_one_of: tuple[str, ...] = ()
    """Fields of which a document must have one for an `any` schema to apply to it."""
    or_nothing_but: tuple[str, ...] = ()
    """Without any of them, it also applies to a document that has only fields of these, and at least one."""

    def applies_to(self, document: Mapping[str, object]) -> bool:
        """Return whether a document with these fields is one of this kind."""
        if not self.only_with_one_of or any(name in document for name in self.only_with_one_of):
            return True
        return bool(document) and all(name in self.or_nothing_but for name in document)


GENERIC_EXTRACTION: Final = Extraction(columns={columns.CLIENT_ID: ("/client_id", "/clientId")})
"""For schemas that say nothing of their own, and for types that need no schema."""
