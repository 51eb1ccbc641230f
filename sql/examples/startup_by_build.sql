-- How long does Firefox take to start, build by build, and did the newest build get slower?
--
-- How to read it: `median_ms` and `p95_ms` are milliseconds from the start of the process to the first thing on the
-- screen. A session is counted once, in its first ping, although all its pings repeat the number. Builds with
-- fewer than a few hundred `starts` jump about by chance. For a picture see jobs/examples/startup_by_build.py.
-- Cost: parses the documents (without histograms) of the main pings of a week; one day costs a seventh.
SELECT
    normalized_channel AS channel,
    app_version AS version,
    app_build_id AS build,
    count(*) AS starts,
    round(quantile_cont(first_paint_ms, 0.5)) AS median_ms,
    round(quantile_cont(first_paint_ms, 0.95)) AS p95_ms
FROM (
    SELECT
        normalized_channel,
        app_version,
        app_build_id,
        TRY_CAST(document ->> '$.payload.simpleMeasurements.firstPaint' AS BIGINT) AS first_paint_ms
    FROM stable.pings
    WHERE submission_date >= current_date - 7
        AND document_type = 'main'
        AND (document ->> '$.payload.info.subsessionCounter') = '1'
)
-- More than ten minutes is a computer that slept while Firefox started, or a wrong clock.
WHERE first_paint_ms BETWEEN 1 AND 600000
GROUP BY ALL
ORDER BY channel, build DESC;
