-- One histogram summed over today's and yesterday's pings: how many samples fell into each bucket?
-- Put the histogram's name in place of GC_MS.
WITH buckets AS (
    SELECT
        unnest(histogram.buckets) AS bucket_from,
        unnest(histogram.counts) AS samples
    FROM (SELECT unnest(histograms) AS histogram FROM live.pings WHERE submission_date >= current_date - 1)
    WHERE histogram.name = 'GC_MS' AND histogram.process = 'parent' AND histogram.key IS NULL
)
SELECT
    bucket_from,
    sum(samples)::BIGINT AS samples,
    round(100 * sum(sum(samples)) OVER (ORDER BY bucket_from) / sum(sum(samples)) OVER (), 1) AS percent_up_to_here
FROM buckets
GROUP BY bucket_from
ORDER BY bucket_from;
