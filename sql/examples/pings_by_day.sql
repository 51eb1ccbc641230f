-- How many pings of each type came each day, and how many of them were sent again?
--
-- How to read it: `repeated` pings have a document id that another ping of that day has as well; `kb_per_ping` is
-- the size of a document once it is decompressed.
-- Cost: next to nothing; a job keeps these counts (derived.ping_counts).
SELECT
    submission_date,
    namespace,
    document_type,
    pings,
    pings - distinct_document_ids AS repeated,
    round(document_bytes / pings / 1000, 1) AS kb_per_ping
FROM derived.ping_counts
WHERE submission_date >= current_date - 30
ORDER BY submission_date DESC, pings DESC;
