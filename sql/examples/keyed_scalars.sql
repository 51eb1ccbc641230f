-- Which keys of a keyed scalar of Firefox are counted most?
--
-- How to read it: put the scalar's name in place of telemetry.event_counts, and a process in place of parent. `clients` are
-- those that sent the key at least once.
-- Cost: parses the documents of the main pings of yesterday and today.
SELECT
    member.key AS key,
    count(DISTINCT client_id) AS clients,
    sum(TRY_CAST(member.value AS BIGINT))::BIGINT AS counted
FROM (
    SELECT client_id, document -> '$.payload.processes.parent.keyedScalars."telemetry.event_counts"' AS scalar
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND document_type = 'main'
), json_each(scalar) AS member
WHERE json_type(scalar) = 'OBJECT'
GROUP BY ALL
ORDER BY counted DESC NULLS LAST, key
LIMIT 100;
