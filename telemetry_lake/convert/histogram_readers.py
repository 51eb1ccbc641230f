"""The two ways of reading the histograms of a document, behind one interface.

The fast way reads them with compiled code from the text, before the rest of the document is decoded. It
takes only documents in which every histogram is ordinary, and hands every other one to the plain way,
which decodes the whole document and converts its histograms one by one.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from telemetry_lake.convert.distributions import lift_distributions
from telemetry_lake.convert.extraction import HistogramPlaces
from telemetry_lake.convert.fast_histograms import column
from telemetry_lake.convert.fast_histograms.column import PingRows, put_back_members
from telemetry_lake.convert.plain_histograms import histogram_containers, lift_histograms
from telemetry_lake.histograms.definitions import HistogramDefinitions
from telemetry_lake.histograms.stored import Json

FindDefinitions = Callable[[bool], HistogramDefinitions | None]
"""Returns the definitions for a document, given whether it has histograms; raises PingRejected."""


class Lifted(NamedTuple):
    """What became of the histograms of one document."""

    containers: list[tuple[str, str]]
    """The JSON Pointer of each object that was emptied, and which histograms were in it."""
    unknown: int
    """Number of histograms that stay in the document, because nothing says what their buckets are."""


NO_HISTOGRAMS: Final = Lifted([], 0)


class UnusualHistogramsError(Exception):
    """This reading cannot convert the histograms of its document; the next one can."""


class Reading(Protocol):
    """One reading of a document. The steps from `decode` on see the document as it reads it."""

    @property
    def text(self) -> bytes:
        """The JSON text of the document, perhaps without the histograms that have been read."""

    @property
    def has_long_numbers(self) -> bool:
        """Whether `text` may have integers of more than 64 bits."""

    @property
    def is_shallow(self) -> bool:
        """Whether it is known that `text`, if it is JSON, is not nested too deep."""

    @property
    def is_final(self) -> bool:
        """Whether a ping that is rejected by this reading is rejected."""

    def lift(self, document: Json, places: HistogramPlaces | None, find: FindDefinitions) -> Lifted:
        """Move every histogram that can be understood from `document`, which is `text` decoded, into rows.

        With definitions, they say which buckets a histogram has; a name they do not know is unknown. Without,
        each histogram's own range says it. Unknown histograms stay in `document`.
        Raises PingRejected, and UnusualHistogramsError when another reading has to do it.
        """


class HistogramReader(Protocol):
    """One way of reading histograms."""

    def __call__(self, text: bytes, rows: PingRows) -> Iterator[Reading]:
        """Yield readings of a document until one of them converts it; the last one is final.

        `rows` receives the histograms. It is empty when a reading is yielded, or holds those of the reading.
        """


def read_plainly(text: bytes, rows: PingRows) -> Iterator[Reading]:
    """Read histograms in plain Python, one by one: the reference."""
    yield _PlainReading(text, rows)


def read_fast(text: bytes, rows: PingRows) -> Iterator[Reading]:
    """Read histograms with compiled code where they are ordinary, otherwise plainly."""
    found = rows.read(text)
    if found is not None:
        yield _FastReading(text, rows, found)
        rows.clear()
    yield _PlainReading(text, rows)


READERS: Final = (read_fast, read_plainly)
"""Both ways; `read_fast` ends with what `read_plainly` does."""


def _lift_distributions(document: Json, places: HistogramPlaces, rows: PingRows) -> Lifted:
    """Move the distributions of a ping of Glean into rows: the same in both readings, as there are few."""
    lifted, containers, unknown = lift_distributions(document, places.inside or "")
    rows.append(lifted)
    return Lifted(containers, unknown)


class _PlainReading:
    has_long_numbers = True
    is_shallow = False
    is_final = True

    def __init__(self, text: bytes, rows: PingRows) -> None:
        self.text = text
        self._rows = rows

    def lift(self, document: Json, places: HistogramPlaces | None, find: FindDefinitions) -> Lifted:
        if places is None:
            return NO_HISTOGRAMS
        if places.form == "glean":
            return _lift_distributions(document, places, self._rows)
        has_histograms = any(container for *_, container in histogram_containers(document, places))
        histograms = lift_histograms(document, places, find(has_histograms))
        self._rows.append(histograms.rows)
        return Lifted(histograms.containers, histograms.unknown)


class _FastReading:
    is_shallow = True

    def __init__(self, text: bytes, rows: PingRows, found: column.Reading) -> None:
        self.text = found.rest
        self.has_long_numbers = found.has_long_numbers
        # Messages name places in the text; they are to be those of the text that was sent.
        self.is_final = not found.containers
        self._sent = text
        self._rows = rows
        self._found = found

    def lift(self, document: Json, places: HistogramPlaces | None, find: FindDefinitions) -> Lifted:
        found = self._found.containers
        if places is None or places.form == "glean":
            if found:
                raise UnusualHistogramsError
            return NO_HISTOGRAMS if places is None else _lift_distributions(document, places, self._rows)
        containers = list(histogram_containers(document, places))
        if [container.pointer for container in found] != [pointer for pointer, *_ in containers]:
            raise UnusualHistogramsError
        settled = self._rows.settle(self._sent, find(self._found.has_members))
        if settled is None:
            raise UnusualHistogramsError
        put_back_members([container for *_, container in containers], settled.put_back)
        lifted = [
            (container.pointer, container.source)
            for number, container in enumerate(found)
            if number in settled.filled
        ]
        return Lifted(lifted, settled.unknown)
