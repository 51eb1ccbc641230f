-- How quickly do the users of the release channel take up a new version?
--
-- How to read it: `percent` of the clients that were active on that day ran the version; a client that updated on the
-- day counts for both. A new version should rise from day to day while the one before it falls.
-- Cost: two small columns and the client ids of two weeks.
WITH active AS (
    SELECT DISTINCT submission_date, app_version AS version, client_id
    FROM stable.pings
    WHERE submission_date >= current_date - 14 AND normalized_channel = 'release' AND client_id IS NOT NULL
),
of_day AS (
    SELECT submission_date, count(DISTINCT client_id) AS clients FROM active GROUP BY ALL
)
SELECT
    submission_date,
    version,
    count(*) AS active_clients,
    round(100 * count(*) / any_value(of_day.clients), 1) AS percent
FROM active JOIN of_day USING (submission_date)
GROUP BY ALL
ORDER BY submission_date, percent DESC, version;
