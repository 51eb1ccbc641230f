-- Spark SQL. jobs/ping_volumes.py gives `live` and `rejected` (one snapshot of each table) and the date.
SELECT
    submission_date,
    date_trunc('HOUR', submission_timestamp) AS submission_hour,
    namespace,
    document_type,
    app_update_channel,
    CAST(NULL AS STRING) AS error_type,
    count(*) AS pings,
    sum(document_bytes) AS bytes
FROM {live}
WHERE submission_date = DATE {date}
GROUP BY ALL
UNION ALL
SELECT
    submission_date,
    date_trunc('HOUR', submission_timestamp) AS submission_hour,
    -- Any client can post to an unknown path; a table of all such paths would be unbounded.
    if(error_type = 'unknown_document_type', NULL, namespace) AS namespace,
    if(error_type = 'unknown_document_type', NULL, document_type) AS document_type,
    CAST(NULL AS STRING) AS app_update_channel,
    error_type,
    count(*) AS pings,
    sum(octet_length(body)) AS bytes
FROM {rejected}
WHERE submission_date = DATE {date}
GROUP BY ALL
