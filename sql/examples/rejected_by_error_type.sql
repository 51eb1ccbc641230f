-- Why were pings rejected in the last week, most frequent reason first, with one example of each?
--
-- How to read it: telemetry_lake/failures.py says what each `error_type` means, docs/conversion.md what the stages
-- are. `for_example` is the message of one of these pings; its bytes are in the column body.
-- Cost: five small columns of a week of rejected pings, of which there are few.
SELECT
    error_type,
    stage,
    count(*) AS pings,
    count(DISTINCT document_type) AS document_types,
    max(submission_timestamp) AS last_seen,
    any_value(error_message) AS for_example
FROM live.rejected_pings
WHERE submission_date >= current_date - 7
GROUP BY ALL
ORDER BY pings DESC;
