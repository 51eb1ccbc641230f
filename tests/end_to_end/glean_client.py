"""An application that measures itself with the real Glean SDK: `python -m tests.end_to_end.glean_client`.

It runs once, in a process of its own, since the SDK allows one application in a process. It sends
`baseline` (becoming active, becoming inactive), `events`, `health` and `reading-session`, a type of its own.
"""

import argparse
from pathlib import Path

from glean import Configuration, Glean, load_metrics, load_pings
from glean._process_dispatcher import ProcessDispatcher
from glean.net import PingUploadWorker

from tests.end_to_end.recording_uploader import RecordingUploader

APPLICATION_ID = "lake-reader"
APPLICATION_VERSION = "1.2.3"
BUILD_ID = "20261123101500"
CHANNEL = "beta"
BOOK = "Příběhy ze Žižkova"
PAGES_TURNED = 42
DEFINITIONS = Path(__file__).parent / "glean"


def main() -> None:
    """Record and send, and return when everything that could be uploaded is."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--server", required=True)
    arguments.add_argument("--data-directory", type=Path, required=True)
    arguments.add_argument("--record", type=Path, required=True)
    given = arguments.parse_args()

    pings = load_pings(DEFINITIONS / "pings.yaml")
    metrics = load_metrics(DEFINITIONS / "metrics.yaml")
    Glean.initialize(
        application_id=APPLICATION_ID,
        application_version=APPLICATION_VERSION,
        application_build_id=BUILD_ID,
        upload_enabled=True,
        data_dir=given.data_directory,
        configuration=Configuration(
            server_endpoint=given.server, channel=CHANNEL, ping_uploader=RecordingUploader(given.record)
        ),
    )
    Glean.handle_client_active()
    metrics.reading.pages_turned.add(PAGES_TURNED)
    metrics.reading.book.set(BOOK)
    for milliseconds in (900, 1_500, 30_000):
        metrics.reading.page_time.accumulate_samples([milliseconds])
    metrics.reading.bookmark.record(metrics.reading.BookmarkExtra(page=17))
    pings.reading_session.submit(pings.reading_session_reason_codes.BOOK_CLOSED.value)
    Glean.handle_client_inactive()
    Glean.shutdown()
    # The SDK uploads in another process, one at a time; a last one takes what came while another ran.
    ProcessDispatcher._wait_for_last_process()
    PingUploadWorker._process().wait()


if __name__ == "__main__":
    main()
