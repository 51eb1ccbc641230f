-- How many clients are in each branch of each experiment, and are the branches as large as they should be?
--
-- How to read it: `percent_of_experiment` of the experiment's clients are in the branch; branches of equal weight
-- that differ by much mean that enrolling goes wrong. A client that changed its branch counts in both.
-- Cost: parses the documents of the main pings of a week.
WITH enrolled AS (
    SELECT client_id, experiment.key AS experiment, experiment.value ->> '$.branch' AS branch
    FROM (
        SELECT client_id, document -> '$.environment.experiments' AS experiments
        FROM stable.pings
        WHERE submission_date >= current_date - 7 AND document_type = 'main' AND client_id IS NOT NULL
    ), json_each(experiments) AS experiment
    WHERE json_type(experiments) = 'OBJECT'
),
of_experiment AS (
    SELECT experiment, count(DISTINCT client_id) AS clients FROM enrolled GROUP BY ALL
)
SELECT
    experiment,
    coalesce(branch, '(none)') AS branch,
    count(DISTINCT client_id) AS clients,
    round(100 * count(DISTINCT client_id) / any_value(of_experiment.clients), 1) AS percent_of_experiment
FROM enrolled JOIN of_experiment USING (experiment)
GROUP BY experiment, branch
ORDER BY experiment, clients DESC, branch;
