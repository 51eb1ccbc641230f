-- Which share of each day's pings repeats a document id of the same day?
--
-- How to read it: clients send again what they believe lost, so some repetition is normal; much of it says that
-- answers do not reach them. stable.pings has each document once.
-- Cost: the column document_id, which hardly compresses, of a week.
SELECT
    submission_date,
    document_type,
    count(*) AS pings,
    count(*) - count(DISTINCT document_id) AS repeated,
    round(100 * (1 - count(DISTINCT document_id) / count(*)), 2) AS percent_repeated
FROM live.pings
WHERE submission_date >= current_date - 7
GROUP BY ALL
ORDER BY repeated DESC, submission_date DESC;
