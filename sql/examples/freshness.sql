-- How old is the newest ping of each document type that can be queried?
SELECT
    document_type,
    max(submission_timestamp) AS newest,
    now() - max(submission_timestamp) AS age
FROM live.pings
WHERE submission_date >= current_date - 1
GROUP BY ALL
ORDER BY newest DESC;
