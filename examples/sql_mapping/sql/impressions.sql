-- One impression for each item of a "shown" event; its place in the list is its position on the page.
SELECT
    line ->> '$.request.id'             AS request_id,
    line ->> '$.request.user'           AS user_id,
    one ->> '$.sku'                     AS item_id,
    place::INTEGER                      AS position,
    (line ->> '$.at')::TIMESTAMPTZ      AS shown_at,
    (line ->> '$.logged')::TIMESTAMPTZ  AS arrived_at,
    (one ->> '$.p')::DOUBLE             AS propensity,
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
FROM files, unnest(line -> '$.items[*]') WITH ORDINALITY AS listed (one, place)
WHERE (line ->> '$.event') = 'shown'
