-- How many minutes has Firefox been running when it sends its last ping of a session?
--
-- How to read it: put another simple measurement in place of uptime. Some are in an object of their own, such as
-- '$.payload.simpleMeasurements.js.setProto'. In derived.histogram_aggregates this one is SIMPLE_MEASURES_UPTIME.
-- Cost: parses the documents of the main pings of yesterday and today.
SELECT
    channel,
    count(uptime) AS sessions,
    round(quantile_cont(uptime, 0.5), 1) AS median_minutes,
    round(quantile_cont(uptime, 0.95), 1) AS p95_minutes
FROM (
    SELECT
        normalized_channel AS channel,
        TRY_CAST(document ->> '$.payload.simpleMeasurements.uptime' AS BIGINT) AS uptime
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND document_type = 'main' AND reason = 'shutdown'
)
WHERE uptime >= 0
GROUP BY ALL
ORDER BY sessions DESC, channel;
