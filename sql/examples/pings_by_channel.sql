-- How many pings came from each channel today and yesterday, and from how many clients?
SELECT
    submission_date,
    normalized_channel AS channel,
    count(*) AS pings,
    count(DISTINCT client_id) AS clients
FROM live.pings
WHERE submission_date >= current_date - 1
GROUP BY ALL
ORDER BY submission_date DESC, pings DESC;
