-- What do pings of Glean say of a boolean, a string, a quantity, a counter, a timespan and a rate?
--
-- How to read it: a metric is read by '$.metrics.<type>."<category>.<name>"'; put your metrics in place of these. Counters
-- begin at 0 with each ping, quantities are the last value that was set. A timespan has a unit, a rate two numbers.
-- In derived.histogram_aggregates the numbers and truth values have the metric's own name.
-- Cost: parses the documents of all pings of Glean of yesterday and today, which are small.
SELECT
    document_type,
    count(*) AS pings,
    count(*) FILTER (WHERE (document ->> '$.metrics.boolean."browser.shell.default_browser"') = 'true')
        AS default_browsers,
    mode(document ->> '$.metrics.string."search.default_engine"') AS most_common_engine,
    max(TRY_CAST(document ->> '$.metrics.quantity."gfx.adapter.ram"' AS BIGINT)) AS most_ram_mb,
    sum(TRY_CAST(document ->> '$.metrics.counter."browser.engagement.uri_count"' AS BIGINT))::BIGINT AS pages,
    sum(
        TRY_CAST(document ->> '$.metrics.timespan."glean.baseline.duration".value' AS BIGINT)
        * CASE document ->> '$.metrics.timespan."glean.baseline.duration".time_unit'
            WHEN 'second' THEN 1 WHEN 'minute' THEN 60 WHEN 'hour' THEN 3600
        END
    )::BIGINT AS seconds_in_use,
    round(
        100 * sum(TRY_CAST(document ->> '$.metrics.rate."network.cache.hits".numerator' AS BIGINT))
        / nullif(sum(TRY_CAST(document ->> '$.metrics.rate."network.cache.hits".denominator' AS BIGINT)), 0), 1
    ) AS percent_from_cache
FROM stable.pings
WHERE submission_date >= current_date - 1 AND json_type(document -> '$.metrics') = 'OBJECT'
GROUP BY ALL
ORDER BY pings DESC, document_type;
