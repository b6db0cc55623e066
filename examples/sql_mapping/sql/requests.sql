-- One request for each "ranked" event of the server.
SELECT
    line ->> '$.request.id'            AS request_id,
    line ->> '$.request.user'          AS user_id,
    line ->> '$.request.page'          AS surface,
    line ->> '$.policy.policy_id'      AS policy_id,
    line ->> '$.policy.model_version'  AS model_version,
    line ->> '$.policy.branch'         AS branch,
    (line ->> '$.policy.tau')::DOUBLE      AS tau,
    (line ->> '$.policy.epsilon')::DOUBLE  AS epsilon,
    (line ->> '$.policy.seed')::BIGINT     AS seed,
    (line ->> '$.at')::TIMESTAMPTZ      AS shown_at,
    (line ->> '$.logged')::TIMESTAMPTZ  AS arrived_at,
    [
        {'item_id': one.sku, 'score': one.score}
        FOR one IN from_json_strict(line -> '$.candidates', '[{"sku": "VARCHAR", "score": "DOUBLE"}]')
    ] AS candidates
FROM files
WHERE (line ->> '$.event') = 'ranked'
