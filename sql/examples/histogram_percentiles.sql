-- What are the median and the 95th percentile of a histogram on each channel?
--
-- How to read it: put the histogram's name in place of GC_MS. Samples are taken to lie evenly in their bucket, which
-- ends where the next bucket begins that any client sent; in the last one its beginning is given. Buckets of
-- different definitions are never added up: such pings have a line of their own. telemetry_lake.analysis
-- gives the same with buckets computed from the definition, and draws them.
-- Cost: the column histograms, most of the bytes of a main ping, of yesterday and today.
WITH filled AS (
    SELECT
        normalized_channel AS channel,
        concat_ws(' ', histogram.bucket_count, 'to', histogram.range_high, 'type', histogram.histogram_type)
            AS definition,
        unnest(string_split(histogram.buckets, ',')::BIGINT[]) AS bucket_from,
        unnest(string_split(histogram.counts, ',')::BIGINT[]) AS samples
    FROM (
        SELECT normalized_channel, unnest(histograms) AS histogram
        FROM stable.pings
        WHERE submission_date >= current_date - 1 AND document_type = 'main'
    )
    WHERE histogram.name = 'GC_MS' AND histogram.process = 'parent' AND histogram.key IS NULL
),
bounds AS (
    SELECT DISTINCT
        definition,
        bucket_from,
        lead(bucket_from, 1, bucket_from) OVER (PARTITION BY definition ORDER BY bucket_from) AS bucket_to
    FROM (SELECT DISTINCT definition, bucket_from FROM filled)
),
summed AS (
    SELECT
        channel,
        definition,
        bucket_from,
        bucket_to,
        sum(greatest(samples, 0)) AS in_bucket,
        sum(in_bucket) OVER (PARTITION BY channel, definition ORDER BY bucket_from) AS up_to_end,
        sum(in_bucket) OVER (PARTITION BY channel, definition) AS all_samples
    FROM filled JOIN bounds USING (definition, bucket_from)
    GROUP BY channel, definition, bucket_from, bucket_to
),
placed AS (
    SELECT
        *,
        bucket_from
            + (bucket_to - bucket_from) * (0.5 * all_samples - up_to_end + in_bucket) / in_bucket AS median,
        bucket_from
            + (bucket_to - bucket_from) * (0.95 * all_samples - up_to_end + in_bucket) / in_bucket AS p95
    FROM summed
    WHERE in_bucket > 0
)
SELECT
    channel,
    definition,
    any_value(all_samples)::BIGINT AS samples,
    round(arg_min(median, bucket_from) FILTER (WHERE up_to_end >= 0.5 * all_samples), 1) AS median,
    round(arg_min(p95, bucket_from) FILTER (WHERE up_to_end >= 0.95 * all_samples), 1) AS p95
FROM placed
GROUP BY channel, definition
ORDER BY channel, definition;
