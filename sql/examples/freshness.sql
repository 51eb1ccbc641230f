-- How old is the newest ping of each document type that can be queried?
--
-- How to read it: `age` is how long ago the server received the newest ping that is a row by now. A type that is
-- sent all the time and has an age of many minutes is stuck on its way; docs/drain.md says where to look.
-- Cost: one column of the files of two days.
SELECT
    document_type,
    max(submission_timestamp) AS newest,
    now() - max(submission_timestamp) AS age
FROM live.pings
WHERE submission_date >= current_date - 1
GROUP BY ALL
ORDER BY newest DESC;
