-- How often does Firefox crash on each channel, per 1,000 hours of use?
--
-- How to read it: `main_crashes` took the whole browser down, `content_crashes` a tab. Hours are the sum of the
-- subsessions that main pings report. Crashes are sent at once and hours when a session ends, so that the last
-- days look worse than they are; a channel without hours has no rate.
-- Cost: parses the documents of the main and crash pings of a week.
SELECT
    normalized_channel AS channel,
    count(*) FILTER (WHERE process = 'main') AS main_crashes,
    count(*) FILTER (WHERE process = 'content') AS content_crashes,
    round(sum(seconds) / 3600, 1) AS hours,
    round(main_crashes * 1000 / nullif(hours, 0), 2) AS main_per_1000_hours,
    round(content_crashes * 1000 / nullif(hours, 0), 2) AS content_per_1000_hours
FROM (
    SELECT
        normalized_channel,
        CASE WHEN document_type = 'crash' THEN coalesce(document ->> '$.payload.processType', 'main') END
            AS process,
        CASE WHEN document_type = 'main'
            THEN TRY_CAST(document ->> '$.payload.info.subsessionLength' AS BIGINT) END AS seconds
    FROM stable.pings
    WHERE submission_date >= current_date - 7 AND document_type IN ('main', 'crash')
)
-- A subsession ends at midnight: more than a day and a little is a wrong clock.
WHERE seconds IS NULL OR seconds BETWEEN 0 AND 100000
GROUP BY channel
ORDER BY main_per_1000_hours DESC NULLS LAST, channel;
