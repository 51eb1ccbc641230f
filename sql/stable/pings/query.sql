-- Spark SQL. jobs/stable_pings.py gives `live` (one snapshot of live.pings), first_date (the first of the days that
-- are compared) and date (the one that is made).
--
-- Rows of `date` that have not been seen before: an id is one of its namespace and type. Places are compared as (time,
-- raw object, position), a total order.
-- Only repeated ids reach the join, so that whole rows are compared with few.
WITH seen AS (
    SELECT
        namespace,
        document_type,
        document_id,
        submission_date,
        struct(submission_timestamp, raw_object, raw_object_position) AS place
    FROM {live}
    WHERE submission_date BETWEEN DATE {first_date} AND DATE {date}
        AND NOT array_contains(
            transform(split(coalesce(headers['x-source-tags'], ''), ','), tag -> lower(trim(tag))), 'automation'
        )
),

repeated AS (
    SELECT namespace, document_type, document_id, min(place) AS first_place
    FROM seen
    GROUP BY namespace, document_type, document_id
    HAVING count(*) > 1 AND max(submission_date) = DATE {date}
)

SELECT live.*
FROM {live} AS live
LEFT ANTI JOIN repeated
    ON live.document_id = repeated.document_id
    AND live.document_type = repeated.document_type
    AND live.namespace = repeated.namespace
    AND struct(live.submission_timestamp, live.raw_object, live.raw_object_position) > repeated.first_place
WHERE live.submission_date = DATE {date}
    AND NOT array_contains(
        transform(split(coalesce(live.headers['x-source-tags'], ''), ','), tag -> lower(trim(tag))), 'automation'
    )
