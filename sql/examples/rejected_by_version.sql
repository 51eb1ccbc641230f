-- Which versions of which application send pings that have to be rejected, and how large is their share?
--
-- How to read it: `percent_rejected` of what the version sent in the week did not become rows. A version that stands
-- out has a bug, or sends a type without a schema. The version is taken from the path; generic submissions do
-- not have it there: theirs are counted by document type alone, as `(generic)`.
-- Cost: three small columns of a week of live.pings and live.rejected_pings.
WITH received AS (
    SELECT request.path AS path, document_type, false AS rejected
    FROM live.pings
    WHERE submission_date >= current_date - 7
    UNION ALL
    SELECT request.path, document_type, true
    FROM live.rejected_pings
    WHERE submission_date >= current_date - 7
)
SELECT
    coalesce(document_type, '(unreadable)') AS document_type,
    -- /submit/telemetry/<document id>/<type>/<application>/<version>/<channel>/<build>
    CASE WHEN path LIKE '/submit/telemetry/%/%/%/%/%' THEN split_part(path, '/', 6) ELSE '(generic)' END
        AS application,
    CASE WHEN path LIKE '/submit/telemetry/%/%/%/%/%' THEN split_part(path, '/', 7) ELSE '' END AS version,
    count(*) AS pings,
    count(*) FILTER (WHERE rejected) AS rejected_pings,
    round(100 * rejected_pings / pings, 2) AS percent_rejected
FROM received
GROUP BY ALL
HAVING rejected_pings > 0
ORDER BY percent_rejected DESC, rejected_pings DESC, document_type, application, version;
