"""The generated archive is what its totals say, and conversion agrees."""

from collections import Counter

import orjson

from lake_testing.historic_archive import FIRST_DAY, HistoricArchive
from lake_testing.ping_builders import convert, ping, rows_of
from telemetry_lake.backfill.units.historic_ping import submission_path


def document_of(content):
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def test_the_totals_are_those_of_the_records():
    archive = HistoricArchive(days=2, records_per_day=120, files_per_day=3, real_every=50)
    files = [(path, list(records)) for path, records in archive.files(".gz")]
    assert [path for path, _ in files][:4] == [
        *(f"2013/08/15/part-0000{number}.gz" for number in range(3)),
        "2013/08/16/part-00000.gz",
    ]
    records = [record for _, found in files for record in found]
    totals = archive.totals
    assert totals.records == len(records) == 240
    assert totals.by_date == {FIRST_DAY: 120, archive.days[1]: 120}
    assert totals.content_bytes == sum(len(content) for _, content in records)
    assert totals.by_kind.total() == 240
    assert totals.by_kind["real"] >= 4
    ids = Counter(document_id for document_id, _ in records)
    assert totals.repeats == 6
    # The bad ids are all the same, and rejected before they could be repeats.
    assert len(records) - len(ids) == totals.repeats + ids[b"not-a-uuid"] - 1

    rows, rejected = rows_of(
        convert([ping(submission_path(name, document_of(text)).decode(), text) for name, text in records])
    )
    assert (len(rows), len(rejected)) == (totals.records - totals.rejects, totals.rejects)
    assert Counter(row["document_version"] for row in rows) == {
        "1": totals.by_kind["real"] + totals.by_kind["classic"],
        "2": totals.by_kind["converted"],
        "3": totals.by_kind["firefox_os"],
        "4": totals.by_kind["unified"],
    }


def test_the_same_seed_gives_the_same_archive():
    def generated(seed):
        return [(path, list(records)) for path, records in HistoricArchive(seed=seed, days=1).files()]

    assert generated(7) == generated(7)
    assert generated(7) != generated(8)
