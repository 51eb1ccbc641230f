-- How often was each label of a labeled counter of Glean counted?
--
-- How to read it: put the metric's name in place of networking.http_response_version. Labels beyond what the metric allows
-- are counted by the client as __other__. `clients` are those that sent the label at least once.
-- Cost: parses the documents of the metrics pings of yesterday and today, which are small.
SELECT
    label.key AS label,
    count(DISTINCT client_id) AS clients,
    sum(TRY_CAST(label.value AS BIGINT))::BIGINT AS counted
FROM (
    SELECT client_id, document -> '$.metrics.labeled_counter."networking.http_response_version"' AS labels
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND document_type = 'metrics'
), json_each(labels) AS label
WHERE json_type(labels) = 'OBJECT'
GROUP BY ALL
ORDER BY counted DESC NULLS LAST, label
LIMIT 100;
