-- Which operating systems, and which versions of them, do our users have?
--
-- How to read it: clients, not pings, so that a client that starts Firefox often counts once. A client whose system
-- changed within the week counts for both. `percent` is of all clients of the week.
-- Cost: four small columns of a week, and counting the client ids in memory.
SELECT
    normalized_os AS os,
    os_version,
    architecture,
    count(DISTINCT client_id) AS clients,
    round(100 * clients / (
        SELECT count(DISTINCT client_id) FROM stable.pings WHERE submission_date >= current_date - 7
    ), 2) AS percent
FROM stable.pings
WHERE submission_date >= current_date - 7 AND client_id IS NOT NULL
GROUP BY ALL
ORDER BY clients DESC, os, os_version, architecture;
