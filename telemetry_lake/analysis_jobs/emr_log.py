"""The log of a run on EMR Serverless, taken from where EMR left it to where logs of runs are shown.

EMR writes what the driver printed to S3 when the job has ended, and now and then before. It is copied once,
at the end.
"""

import gzip
import logging
import zlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_lake.analysis_jobs.run_log import LINE_MAX_BYTES, RunLog
from telemetry_lake.mapreduce.progress import MARK
from telemetry_lake.units import MIB

READ_MAX_BYTES: Final = 64 * MIB
"""The most of a log that is read, decompressed; of more, the rest is left out."""
OF_DRIVER: Final = ("stdout.gz", "stderr.gz")
"""What the script printed, and what Spark and the job said."""

_log = logging.getLogger(__name__)


def keep_driver_log(s3: Any, log_uri: str, application: str, job_run: str, log: RunLog) -> None:
    """Add what the driver of a job run printed to a log; `s3` is a client of boto3.

    A log that cannot be read is no failure of the run; the log says so.
    """
    place = urlsplit(log_uri)
    folder = f"{place.path.strip('/')}/applications/{application}/jobs/{job_run}/SPARK_DRIVER/"
    for name in OF_DRIVER:
        try:
            body = s3.get_object(Bucket=place.netloc, Key=f"{folder.lstrip('/')}{name}")["Body"]
            for line in _lines(body):
                # The job wrote its progress itself.
                log.add(line.removeprefix(MARK))
        except (BotoCoreError, ClientError, OSError, EOFError, zlib.error) as failure:
            _log.warning("the log %s%s cannot be read: %s", folder, name, failure)
            log.add(f"[{name} of the driver cannot be read: {failure}]")


def _lines(body: Any) -> Iterator[str]:
    """Yield the lines of a gzip stream, cut where they are long, up to the limit."""
    room = READ_MAX_BYTES
    with gzip.GzipFile(fileobj=body) as lines:
        while room > 0 and (line := lines.readline(min(room, LINE_MAX_BYTES + 1))):
            room -= len(line)
            yield line.decode(errors="replace").rstrip("\r\n")
        if room <= 0 and lines.read(1):
            yield f"[… the log goes on after {READ_MAX_BYTES:,} bytes …]"
