-- One histogram summed over today's and yesterday's pings: how many samples fell into each bucket?
--
-- How to read it: put the histogram's name in place of GC_MS. `percent_up_to_here` is how many of the samples are in
-- this bucket or in a lower one. Clients of different versions may use different buckets: `definition` tells
-- them apart, and each has its own 100 %.
-- Cost: the column histograms, most of the bytes of a main ping, of two days.
WITH buckets AS (
    SELECT
        concat_ws(' ', histogram.bucket_count, 'to', histogram.range_high, 'type', histogram.histogram_type)
            AS definition,
        unnest(string_split(histogram.buckets, ',')::BIGINT[]) AS bucket_from,
        unnest(string_split(histogram.counts, ',')::BIGINT[]) AS samples
    FROM (SELECT unnest(histograms) AS histogram FROM live.pings WHERE submission_date >= current_date - 1)
    WHERE histogram.name = 'GC_MS' AND histogram.process = 'parent' AND histogram.key IS NULL
)
SELECT
    definition,
    bucket_from,
    sum(samples)::BIGINT AS samples,
    round(
        100 * sum(sum(samples)) OVER (PARTITION BY definition ORDER BY bucket_from)
        / sum(sum(samples)) OVER (PARTITION BY definition), 1
    ) AS percent_up_to_here
FROM buckets
GROUP BY definition, bucket_from
ORDER BY definition, bucket_from;
