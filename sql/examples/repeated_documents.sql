-- Which share of each day's pings repeats a document id of the same day, namespace and type?
--
-- How to read it: clients send again what they believe to be lost, so some repetition is normal; much of it means that
-- answers do not reach them. stable.pings has each document once.
-- Cost: the columns namespace and document_id, of which the latter hardly compresses, of a week.
SELECT
    submission_date,
    document_type,
    count(*) AS pings,
    count(*) - count(DISTINCT (namespace, document_id)) AS repeated,
    round(100 * (1 - count(DISTINCT (namespace, document_id)) / count(*)), 2) AS percent_repeated
FROM live.pings
WHERE submission_date >= current_date - 7
GROUP BY ALL
ORDER BY repeated DESC, submission_date DESC;
