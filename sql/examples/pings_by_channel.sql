-- How many pings came from each channel today and yesterday, and from how many clients?
--
-- How to read it: `clients` counts client ids, so pings without one are in `pings` only. Today is not over.
-- Cost: two columns of two days.
SELECT
    submission_date,
    normalized_channel AS channel,
    count(*) AS pings,
    count(DISTINCT client_id) AS clients
FROM live.pings
WHERE submission_date >= current_date - 1
GROUP BY ALL
ORDER BY submission_date DESC, pings DESC;
