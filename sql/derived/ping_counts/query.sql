-- Spark SQL. jobs/count_pings.py gives first_date and last_date, both inclusive.
SELECT
    submission_date,
    namespace,
    document_type,
    count(*) AS pings,
    count(DISTINCT document_id) AS distinct_document_ids,
    sum(document_bytes) AS document_bytes
FROM live.pings
WHERE submission_date BETWEEN DATE {first_date} AND DATE {last_date}
GROUP BY submission_date, namespace, document_type
ORDER BY submission_date, namespace, document_type
