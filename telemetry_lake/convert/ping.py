"""A ping on its way through the steps of the conversion."""

from dataclasses import dataclass, field

from telemetry_lake.convert.document_schemas import DocumentSchema
from telemetry_lake.convert.histogram_readers import NO_HISTOGRAMS, Lifted, Reading
from telemetry_lake.histograms.stored import Json
from telemetry_lake.raw.submission_path import SubmissionPath


@dataclass(slots=True)
class Ping:
    """What is known of one ping. Each step fills in what it finds out."""

    row: int
    """Row of the ping in its record batch."""
    raw_path: str
    path: SubmissionPath | None = None
    document_version: str | None = None
    body: bytes = b""
    """As it was received."""
    content_encoding: str = ""
    """What the request says about it, where its first bytes do not."""
    text: bytes = b""
    """The JSON text of the document as it was sent."""
    reading: Reading = field(init=False)
    document: Json = field(init=False)
    """What is left of the document: what has moved into columns is no longer in it."""
    has_halves: bool = False
    """Whether a text in the document has a half of a surrogate pair."""
    schema: DocumentSchema = field(init=False)
    histograms: Lifted = NO_HISTOGRAMS
    sent: list[str | None] = field(init=False)
    """A value for each of `EXTRACTED_COLUMNS`, dimensions as they were sent."""
    lifted: list[tuple[str, str]] = field(init=False)
    """The places in the document that were emptied for `sent`, with their entries for the column `lifted`."""
    rest: str = field(init=False)
    """The text of what is left of the document."""

    @property
    def submission(self) -> SubmissionPath:
        """The parts of its path, once that has been parsed."""
        if self.path is None:
            raise AssertionError("the path has not been parsed")
        return self.path
