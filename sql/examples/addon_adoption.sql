-- Which add-ons do users have, and how many of them?
--
-- How to read it: `percent_of_clients` is of the clients that list their add-ons. Add-ons that come with Firefox are
-- left out. `versions` shows whether an update arrives.
-- Cost: parses the documents of the main pings of yesterday and today, and opens the list of add-ons in each.
WITH told AS (
    SELECT client_id, document -> '$.environment.addons.activeAddons' AS addons
    FROM stable.pings
    WHERE submission_date >= current_date - 1 AND document_type = 'main' AND client_id IS NOT NULL
)
SELECT
    addon.key AS addon_id,
    count(DISTINCT client_id) AS clients,
    round(100 * clients / (SELECT count(DISTINCT client_id) FROM told WHERE json_type(addons) = 'OBJECT'), 1)
        AS percent_of_clients,
    count(DISTINCT addon.value ->> '$.version') AS versions
FROM told, json_each(addons) AS addon
WHERE json_type(addons) = 'OBJECT' AND (addon.value ->> '$.isSystem') IS DISTINCT FROM 'true'
GROUP BY addon_id
ORDER BY clients DESC, addon_id
LIMIT 100;
