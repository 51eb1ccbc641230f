-- Why were pings rejected in the last week, most frequent reason first, with one example of each?
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
