"""The report page: what stands where, that nothing in a report is ever live, and that bytes repeat."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sameworld.page import plots as figures
from sameworld.page.render import render
from sameworld.page.view import metric_rows, unsaid

Cases = dict[str, tuple[dict[str, Any], dict[str, Any]]]
CASES = ["full", "blocked", "hostile", "hostile reasons", "empty"]
NAMES = ["log", "delay", "labels", "training_set", "position", "model", "metrics", "slices", "policy_value", "skew"]
NAMES += ["staleness", "drills", "loop", "leak", "early", "gap", "comparison", "ab", "steps"]
SECTIONS = [
    "decision",
    "better",
    "slices",
    "belief",
    "numbers",
    "plots",
    "data",
    "log",
    "gates",
    "steps",
    "spec",
    "glossary",
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Collects what a browser would see: elements, their order, and whether they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="session")
def pages(cases: Cases) -> dict[str, tuple[str, Page]]:
    texts = {name: render(report, plots=plots) for name, (report, plots) in cases.items()}
    return {name: (text, Page(text)) for name, text in texts.items()}


@pytest.fixture(params=CASES)
def page(request: pytest.FixtureRequest, pages: dict[str, tuple[str, Page]]) -> tuple[str, Page]:
    return pages[request.param]


@pytest.fixture
def full(pages: dict[str, tuple[str, Page]]) -> Page:
    return pages["full"][1]


def test_every_element_of_a_page_is_closed(page: tuple[str, Page]) -> None:
    assert (page[1].open, page[1].unbalanced) == ([], [])


def test_a_page_holds_no_script_handler_or_link_that_leaves_it(page: tuple[str, Page]) -> None:
    for tag, attrs in page[1].starts:
        assert tag not in {"script", "img", "iframe", "link", "object", "embed", "form", "base", "b1"}
        assert not [name for name in attrs if name.startswith("on") or name in {"src", "srcset", "action"}]
        assert all((attrs.get(name) or "#").startswith("#") for name in ("href", "xlink:href"))


def test_a_page_refers_to_no_address_but_the_svg_namespaces(page: tuple[str, Page]) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'<]*|url\((?!#)[^)]*\)|@import", page[0]))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in page[0].lower()


def test_sections_come_in_reading_order_with_the_decision_first(page: tuple[str, Page]) -> None:
    assert [attrs["id"] for tag, attrs in page[1].starts if tag == "section"] == SECTIONS


def test_headings_never_skip_a_level_and_there_is_one_h1(page: tuple[str, Page]) -> None:
    levels = [int(tag[1]) for tag, _ in page[1].starts if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_table_has_a_caption_and_every_picture_says_what_it_shows(page: tuple[str, Page]) -> None:
    tags = [tag for tag, _ in page[1].starts]
    assert tags.count("table") == tags.count("caption")
    assert all(attrs["role"] == "img" and attrs["aria-label"] for tag, attrs in page[1].starts if tag == "svg")


def test_no_id_is_used_twice(page: tuple[str, Page]) -> None:
    ids = [attrs["id"] for _, attrs in page[1].starts if "id" in attrs]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("name", CASES)
def test_the_same_report_gives_the_same_bytes(name: str, cases: Cases, pages: dict[str, tuple[str, Page]]) -> None:
    report, plots = cases[name]
    assert render(copy.deepcopy(report), plots=copy.deepcopy(plots)) == pages[name][0]


def test_hostile_text_is_shown_as_the_text_it_is(pages: dict[str, tuple[str, Page]], hostile: str) -> None:
    assert pages["hostile"][1].text.count(" ".join(hostile.split())) > 100


@pytest.mark.parametrize("section", NAMES)
def test_a_section_that_cannot_be_shows_its_reason_where_its_value_would_be(
    section: str, report: dict[str, Any]
) -> None:
    reason = f"no {section} because the moon was full"
    text = Page(render(report | {section: {"cannot": reason}}, plots={})).text
    assert f"Cannot say: {reason}" in text


@pytest.mark.parametrize("inner", ["normalised_entropy", "auc"])
def test_a_single_metric_that_cannot_be_said_leaves_the_others_standing(inner: str, report: dict[str, Any]) -> None:
    report["metrics"][inner] = {"cannot": "only one class"}
    text = Page(render(report, plots={})).text
    assert "Cannot say: only one class" in text
    assert "0.5085 to 0.5169" in text


def test_a_blocked_run_says_hold_and_names_its_reason_once_among_the_unsaid(
    cases: Cases, pages: dict[str, tuple[str, Page]]
) -> None:
    text = pages["blocked"][1].text
    assert text.index("HOLD Nothing changes yet") < text.index("Is it better?")
    assert len(unsaid(cases["blocked"][0])) == 1
    assert "BLOCK 71.2 % of the usual requests" in text


@pytest.mark.parametrize("outcome", ["PROMOTE", "HOLD", "REJECT", "ROLLBACK"])
def test_the_decision_stands_first_with_every_reason(outcome: str, report: dict[str, Any]) -> None:
    report["decision"] = {"outcome": outcome, "reasons": ["first why", "second why"], "bundle": "abc"}
    text = Page(render(report, plots={})).text.split("Skip to the evidence")[1]
    places = [text.index(part) for part in (outcome, "first why", "second why", "Is it better?")]
    assert places == sorted(places)


def test_every_metric_stands_in_a_row_with_its_number_of_rows(report: dict[str, Any]) -> None:
    html = render(report, plots={})
    table = html[html.index("Metrics of the back-test") : html.index('id="worth"')]
    rows = re.findall(r"<tr>.*?</tr>", table, flags=re.S)[1:]
    assert len(rows) == len(report["metrics"])
    assert all("1,204,000 rows" in row for row in rows)


@pytest.mark.parametrize(
    ("plots", "said"),
    [
        ({}, "Can I believe it? Cannot say what the gates found is not in this report"),
        ({"findings": {"cannot": "no gate ran"}}, "Can I believe it? Cannot say no gate ran"),
        ({"findings": []}, "Can I believe it? No findings"),
    ],
)
def test_gates_that_were_not_heard_are_never_taken_for_approval(
    plots: dict[str, Any], said: str, report: dict[str, Any]
) -> None:
    text = Page(render(report, plots=plots)).text
    assert said in text
    assert ("No findings." in text) == (plots == {"findings": []})


def test_a_section_that_the_report_lacks_is_among_what_cannot_be_said(report: dict[str, Any]) -> None:
    del report["leak"]
    assert ("not in this report", ["leak"]) in unsaid(report)


def test_a_difference_is_called_better_only_where_its_interval_is_clear_of_zero(full: Page) -> None:
    said = re.search(r"So it is Rows (.*?) Against the simple", full.text)
    assert said is not None
    assert re.findall(r"no clear difference|better|worse", said[1]) == [
        "better",
        "no clear difference",
        "better",
        "no clear difference",
        "worse",
    ]


def test_a_metric_without_its_rows_says_so() -> None:
    bare = {"metrics": {"ndcg@10": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    assert metric_rows(bare)[0]["rows"] == "rows not stated"


def test_every_picture_of_the_full_report_is_drawn_and_says_its_rows(full: Page) -> None:
    assert len([1 for tag, attrs in full.starts if tag == "svg" and attrs["class"] in {"plot", "wide"}]) == 9
    assert all(count in full.text for count in ("1,204,000 rows", "96,574 impressions", "11,980,400 rows"))


def test_times_and_lengths_read_as_people_write_them(full: Page) -> None:
    assert all(said in full.text for said in ("2026-03-20 00:00 UTC", "2.55 days", "12.6 minutes", "7.2 min"))


def test_the_sums_of_the_log_are_shown_with_each_reason_for_quarantine(full: Page) -> None:
    assert "impressions 12,043,770 12,040,601 3,110 12 47 null key 40 arrived before shown 7" in full.text


def test_served_against_recomputed_names_the_worst_feature_and_how_it_differs(full: Page) -> None:
    assert "1.42 % of x_price, the worst: mismatch 1.21 %, missing 0.21 %, stale 0.605 %" in full.text
    assert "x_price item_stats 1,204,000 1.21 % 0.21 % 0 % 0.605 %" in full.text
    assert "item_stats 98 % 12 hours 21.5 hours 2.5 days" in full.text


def test_features_that_nowhere_differ_are_said_to_agree(report: dict[str, Any]) -> None:
    shares = dict.fromkeys(("mismatch_share", "missing_share", "extra_share", "stale_share"), 0.0)
    report["skew"] = [{"feature": "x_price", "view": "stats", "compared": 12, **shares}]
    assert "no difference in 1 feature" in Page(render(report, plots={})).text


def test_the_leak_says_how_far_each_source_would_have_moved_the_metric(full: Page) -> None:
    assert "let in, it would have moved normalised entropy by −0.0313 (−0.0354 to −0.0272)" in full.text
    assert "all of it 0.7811 −0.0313 −0.0354 to −0.0272" in full.text
    assert "item stats 0.8026 −0.0098 −0.0118 to −0.0078" in full.text
    assert "item stats, as of today 0.6124 −0.200 −0.210 to −0.190" in full.text
    assert "4,020 outcomes and 17 retractions late" in full.text
    assert "AUC Cannot say: AUC needs both classes" in full.text


def test_a_leak_of_exactly_0_is_good_news(report: dict[str, Any]) -> None:
    report["leak"] |= {"inflation": {"value": 0.0, "low": 0.0, "high": 0.0}}
    assert "kept out; let in, it would not have moved normalised entropy" in Page(render(report, plots={})).text


def test_the_loop_says_its_measures_with_their_trends_and_what_exploring_costs_and_buys(full: Page) -> None:
    assert "explored share 2.02 % 0 −0.00010 to +0.00010" in full.text
    assert "support 0.412 −0.0004 −0.0011 to +0.0003" in full.text
    assert "Alarm no neither trend is clear of 0" in full.text
    assert "What exploring costs, a request 0.0041 0.0022 to 0.0060" in full.text
    assert "Share of shuffled requests that is enough 1.26 % for ± 5 % of the policy’s value" in full.text
    assert "0 % Cannot say: some of the model's choices would never be shown 0" in full.text
    assert "100 % 0.6 % 0.205" in full.text


def test_what_exploring_would_buy_is_drawn_without_a_cost_where_that_is_not_known(report: dict[str, Any]) -> None:
    report["loop"]["exploration_cost"] = {"cannot": "no request logs its branch"}
    html = render(report, plots={})
    assert "Half-width of the policy&#x27;s value by share of shuffled requests, 13 shares" in html
    assert "Cannot say: no request logs its branch" in Page(html).text


def test_an_outage_says_what_it_costs_how_often_it_came_and_why(full: Page) -> None:
    assert "x_ctr, x_buys timeout 90 %, not stated 10 % 0.7421 0.7381 to 0.7461 −0.0267 −0.0287 to −0.0247" in full.text
    assert "0.912 0.882 to 0.942 0.97 0.91 to 1.03 8.1 % 9,752" in full.text


def test_an_outage_that_never_came_names_its_first_features_and_says_why_it_has_no_requests(full: Page) -> None:
    assert "x_user_0, x_user_1, x_user_2, x_user_3 and 2 more 0.7604" in full.text
    assert "Cannot say: no judged request lacked them 0 % 0" in full.text


def test_where_the_deciding_metric_has_no_number_outages_are_drawn_by_another(report: dict[str, Any]) -> None:
    for drill in report["drills"]:
        cannot = {which: {"cannot": "the log has no lists"} for which in ("with", "without", "delta")}
        drill["metrics"] |= {"ndcg@10": cannot, "normalised_entropy": drill["metrics"]["ndcg@10"]}
    assert "normalised entropy without them stands above" in Page(render(report, plots={})).text


def test_the_early_read_says_what_is_known_so_far_and_of_how_much(full: Page) -> None:
    assert "2,860,190 rows, 2026-03-12 18:00 UTC to 2026-03-20 00:00 UTC; 21,400 positives known so far" in full.text
    assert "58.21 % of those to come" in full.text
    assert "calibration ratio 1.010 0.990 to 1.030" in full.text


def test_names_in_a_figure_are_never_mathematics_or_markup() -> None:
    svg = figures.null_rates({"features": ["$x^2$", "<b1>", "a & b"], "days": ["d"], "rates": [[0.5], [None], [1.0]]})
    assert Page(svg).text.endswith("$x^2$ <b1> a & b 50 % 100 %")


def test_every_colour_of_a_figure_is_a_variable_of_the_page(plots: dict[str, Any]) -> None:
    svg = figures.labels_by_day(plots["labels_by_day"])
    assert re.findall(r"(?:fill|stroke): #\w+", svg) == []
    assert "var(--accent)" in svg


@pytest.mark.parametrize(
    "svg",
    [
        figures.reliability([]),
        figures.delay_curves([], kind="click"),
        figures.examination([{"cannot": "no"}]),
        figures.propensity_histogram({"edges": [0, 1], "counts": []}),
        figures.labels_by_day([]),
        figures.null_rates({}),
    ],
)
def test_a_figure_without_data_is_no_figure(svg: str) -> None:
    assert svg == ""


def test_a_dot_of_a_reliability_figure_lies_where_its_numbers_say() -> None:
    points = [{"predicted": x, "observed": x, "low": x - 0.05, "high": x + 0.05, "rows": 9} for x in (0.1, 0.3, 0.5)]
    xs = [
        float(x)
        for x in re.findall(
            r'<use xlink:href="[^"]+" x="([\d.]+)" y="[\d.]+" style="fill: var\(--accent\)', figures.reliability(points)
        )
    ]
    assert xs[2] - xs[1] == pytest.approx(xs[1] - xs[0], rel=1e-3)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2, "relative luminance")."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_text_and_lines_stand_out_from_what_is_behind_them(theme: int) -> None:
    style = (Path(figures.__file__).parent / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", style, flags=re.S)[theme]))
    written = [
        (ink, behind) for ink in ("ink", "muted", "accent", "good", "warn", "bad") for behind in ("card", "page")
    ]
    written += [(tone, f"{tone}-soft") for tone in ("good", "warn", "bad")]
    assert [pair for pair in written if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []
    drawn = [f"series-{place}" for place in range(1, 7)]
    assert [line for line in drawn if contrast(colours[line], colours["card"]) < 3] == []
