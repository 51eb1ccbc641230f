-- How large is a scalar of Firefox on each channel?
--
-- How to read it: put the scalar's name in place of browser.engagement.total_uri_count, and a process (content, gpu, …) in
-- place of parent. A scalar is in the document only when it was recorded since the last ping. Texts and truth values
-- are read by the same expression: leave the cast out. For numbers over many days ask derived.histogram_aggregates,
-- where it is called SCALARS_BROWSER.ENGAGEMENT.TOTAL_URI_COUNT.
-- Cost: parses the documents of the main pings of yesterday and today.
SELECT
    channel,
    count(*) AS pings,
    count(scalar) AS pings_with_it,
    round(avg(scalar), 1) AS mean,
    round(quantile_cont(scalar, 0.5), 1) AS median,
    max(scalar) AS highest
FROM (
    SELECT
        normalized_channel AS channel,
        TRY_CAST(document ->> '$.payload.processes.parent.scalars."browser.engagement.total_uri_count"' AS BIGINT)
            AS scalar
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND document_type = 'main'
)
GROUP BY ALL
ORDER BY pings DESC, channel;
