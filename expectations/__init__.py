"""One suite a table: names, units, ranges and thresholds."""
