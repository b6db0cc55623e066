-- What could have been shown, with the features that it was scored by: the server logs those for a share of requests.
SELECT
    line ->> '$.request.id'             AS request_id,
    one ->> '$.sku'                     AS item_id,
    (line ->> '$.logged')::TIMESTAMPTZ  AS arrived_at,
    one ->> '$.features.surface'                     AS x_surface,
    one ->> '$.features.segment'                     AS x_segment,
    (one ->> '$.features.hour')::BIGINT              AS x_hour,
    (one ->> '$.features.content')::DOUBLE           AS x_content,
    (one ->> '$.features.item_age_days')::BIGINT     AS x_item_age_days,
    (one ->> '$.features.user_0')::DOUBLE            AS x_user_0,
    (one ->> '$.features.user_1')::DOUBLE            AS x_user_1,
    (one ->> '$.features.user_2')::DOUBLE            AS x_user_2,
    (one ->> '$.features.affinity')::DOUBLE          AS x_affinity,
    (one ->> '$.features.item_ctr')::DOUBLE          AS x_item_ctr,
    (one ->> '$.features.item_buy_rate')::DOUBLE     AS x_item_buy_rate,
    (one ->> '$.features.item_clicks')::BIGINT       AS x_item_clicks,
    (one -> '$.missing')::MAP(VARCHAR, VARCHAR)      AS null_reason
FROM files, unnest(line -> '$.candidates[*]') AS listed (one)
WHERE (line ->> '$.event') = 'ranked' AND (one -> '$.features') IS NOT NULL
