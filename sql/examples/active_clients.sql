-- How many clients were active on each day, by channel and country?
--
-- How to read it: a client is active on a day when any ping of it arrived on that day; `share_of_week` is how many
-- of the clients that were active at some time of the week were active on this day. Countries come from the
-- address, ?? where no database is configured.
-- Cost: three small columns and the client ids of a week.
WITH active AS (
    SELECT DISTINCT submission_date, normalized_channel AS channel, country, client_id
    FROM stable.pings
    WHERE submission_date >= current_date - 7 AND client_id IS NOT NULL
),
of_week AS (
    SELECT channel, country, count(DISTINCT client_id) AS clients FROM active GROUP BY ALL
)
SELECT
    submission_date,
    channel,
    country,
    count(*) AS active_clients,
    round(count(*) / any_value(of_week.clients), 3) AS share_of_week
FROM active JOIN of_week USING (channel, country)
GROUP BY ALL
ORDER BY submission_date DESC, active_clients DESC, channel, country;
