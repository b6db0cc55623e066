-- The night's statistics of items; the day is in the files' names only, the hour from which they could be read inside.
SELECT
    sku         AS item_id,
    (getvariable('day') + to_hours(from_hour)) AT TIME ZONE 'UTC' AS available_at,
    click_rate  AS item_ctr,
    buy_rate    AS item_buy_rate,
    clicks      AS item_clicks
FROM files
