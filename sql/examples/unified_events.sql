-- Which events did Firefox record most, and in how many sessions?
--
-- How to read it: an event is a list: milliseconds since the process started, category, method, object, and perhaps a value
-- and an object of extras ('$[5].engine'). Events are in pings of the type event, by process.
-- Cost: parses the documents of the event pings of yesterday and today.
SELECT
    process,
    event ->> '$[1]' AS category,
    event ->> '$[2]' AS method,
    event ->> '$[3]' AS object,
    count(*) AS events,
    count(DISTINCT session) AS sessions
FROM (
    SELECT
        document ->> '$.payload.sessionId' AS session,
        of_process.key AS process,
        unnest(CASE WHEN json_type(of_process.value) = 'ARRAY' THEN (of_process.value -> '$[*]') END) AS event
    FROM stable.pings, json_each(document -> '$.payload.events') AS of_process
    WHERE submission_date >= current_date - 1
        AND document_type = 'event'
        AND json_type(document -> '$.payload.events') = 'OBJECT'
)
GROUP BY ALL
ORDER BY events DESC, process, category, method, object
LIMIT 100;
