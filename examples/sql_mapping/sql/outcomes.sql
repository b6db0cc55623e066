-- Clicks and purchases; the shop writes its own words, and Berlin's time without saying so.
SELECT
    req AS request_id,
    sku AS item_id,
    CASE action WHEN 'clk' THEN 'click' WHEN 'buy' THEN 'purchase' ELSE action END AS kind,
    strptime(done, '%d.%m.%Y %H:%M:%S.%f') AT TIME ZONE 'Europe/Berlin'    AS happened_at,
    strptime(logged, '%d.%m.%Y %H:%M:%S.%f') AT TIME ZONE 'Europe/Berlin'  AS arrived_at
FROM files
