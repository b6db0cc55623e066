-- The night's statistics of items; they can be read from 06:00 UTC of their day on, which no column says.
SELECT
    sku         AS item_id,
    (getvariable('day') + INTERVAL 6 HOUR) AT TIME ZONE 'UTC' AS available_at,
    click_rate  AS item_ctr,
    buy_rate    AS item_buy_rate,
    clicks      AS item_clicks
FROM files
