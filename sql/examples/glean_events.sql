-- Which events did applications with Glean record most, and by how many clients?
--
-- How to read it: an event of Glean has a category, a name, milliseconds since the first event of its ping, and perhaps
-- an object of extras (event ->> '$.extra.page'). A client's pings are counted whatever their type is.
-- Cost: parses the documents of all pings of yesterday and today that have events.
SELECT
    document_type,
    event ->> '$.category' AS category,
    event ->> '$.name' AS name,
    count(*) AS events,
    count(DISTINCT client_id) AS clients
FROM (
    SELECT document_type, client_id, unnest(document -> '$.events[*]') AS event
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND json_type(document -> '$.events') = 'ARRAY'
)
GROUP BY ALL
ORDER BY events DESC, document_type, category, name
LIMIT 100;
