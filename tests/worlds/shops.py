"""Three shops whose drops look nothing alike, for tests that must not depend on one exporter's habits.

``news_feed``: explores with logged candidates and scores; ``marketplace``: slow outcomes, propensities, no requests
table; ``search``: a deterministic order of an unknown policy. Each is seeded and returns its record, with the truth.
"""

from __future__ import annotations

from pathlib import Path

from worlds.drop_files import Shop, Truth
from worlds.hotels import HotelSearch, write_search
from worlds.market import Marketplace, write_marketplace
from worlds.news import NewsFeed, write_news_feed

__all__ = ["HotelSearch", "Marketplace", "NewsFeed", "Shop", "Truth", "marketplace", "news_feed", "search"]


def news_feed(out: Path, seed: int = 0, days: int = 12, requests_per_day: int = 400) -> Shop:
    """Write a news feed's drop into the empty folder ``out``; further settings: ``write_news_feed``."""
    return write_news_feed(out, NewsFeed(seed=seed, days=days, requests_per_day=requests_per_day))


def marketplace(out: Path, seed: int = 0, days: int = 12, requests_per_day: int = 400) -> Shop:
    """Write a marketplace's drop into the empty folder ``out``; further settings: ``write_marketplace``."""
    return write_marketplace(out, Marketplace(seed=seed, days=days, requests_per_day=requests_per_day))


def search(out: Path, seed: int = 0, days: int = 12, requests_per_day: int = 400) -> Shop:
    """Write a hotel search's drop into the empty folder ``out``; further settings: ``write_search``."""
    return write_search(out, HotelSearch(seed=seed, days=days, requests_per_day=requests_per_day))
