"""A feature view reaches every part of the training set that could have read it."""

from __future__ import annotations

import shutil

from whole.small_days import copied, days_of, fresh, made_by, run, shop, tree_of


def test_a_view_that_landed_once_long_ago_is_still_joined() -> None:
    made, root = shop("marketplace"), fresh("once")
    drop = copied(made.drop)
    for day in days_of(drop)[1:]:
        shutil.rmtree(drop / f"day={day}" / "features")
    tree = {**tree_of(made, drop), "features": {"views": {"user_stats": ["orders_30d"]}}}
    rates = made_by(root, run(root, tree, days_of(drop)[-1], only="assemble"), "assemble").record["null_rates"]
    newest = dict(zip(rates["features"], (days[-1] for days in rates["rates"]), strict=True))
    assert newest["x_orders_30d"] < 0.5
