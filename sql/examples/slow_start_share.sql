-- On which computers does Firefox often take longer than ten seconds to start?
--
-- How to read it: `percent_slow` of the `starts` took more than 10,000 ms until something was on the screen, on
-- computers with that operating system and so much memory. As in startup_by_build.sql a session counts once.
-- Cost: parses the documents of the main pings of a week.
SELECT
    normalized_os AS os,
    CASE
        WHEN memory_mb <= 2048 THEN '1: up to 2 GB'
        WHEN memory_mb <= 4096 THEN '2: up to 4 GB'
        WHEN memory_mb <= 8192 THEN '3: up to 8 GB'
        WHEN memory_mb > 8192 THEN '4: more than 8 GB'
        ELSE '5: unknown'
    END AS memory,
    count(*) AS starts,
    round(100 * count(*) FILTER (WHERE first_paint_ms > 10000) / count(*), 1) AS percent_slow
FROM (
    SELECT
        normalized_os,
        TRY_CAST(document ->> '$.environment.system.memoryMB' AS BIGINT) AS memory_mb,
        TRY_CAST(document ->> '$.payload.simpleMeasurements.firstPaint' AS BIGINT) AS first_paint_ms
    FROM stable.pings
    WHERE submission_date >= current_date - 7
        AND document_type = 'main'
        AND (document ->> '$.payload.info.subsessionCounter') = '1'
)
WHERE first_paint_ms BETWEEN 1 AND 600000
GROUP BY ALL
ORDER BY os, memory;
