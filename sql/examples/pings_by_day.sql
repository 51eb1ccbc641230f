-- How many pings of each type came each day? From the counts that a job keeps, so it costs nothing.
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
