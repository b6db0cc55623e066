"""Every benchmark at its small size agrees with what it is compared with; its page says seed and commit."""

import importlib
import json
import re

import pytest

from benchmarks import __main__ as command
from benchmarks.evidence import Claim, finding, page, table

# Its small size is what tests/in_airflow/test_scheduler.py does, in the Airflow that runs there anyway.
ELSEWHERE = {"backfill_in_airflow"}


@pytest.mark.parametrize("name", sorted(set(command.NAMES) - ELSEWHERE))
def test_a_benchmark_agrees_at_its_small_size(name):
    module = importlib.import_module(f"benchmarks.{name}")
    found = module.run(small=True)
    assert [claim for claim in found["claims"] if not claim.holds] == []
    assert len(found["claims"]) >= 2
    assert len(module.__doc__.splitlines()) > 3
    json.dumps(found["figures"], allow_nan=False)


def test_the_benchmarks_are_found_and_not_listed():
    assert {"closed_loop_backtest", "lambdarank_oracle", "open_bandit_policy_value"} <= set(command.NAMES)


def test_a_claim_that_does_not_hold_is_seen_in_the_table_and_in_the_exit_code(monkeypatch, capsys):
    bad = finding(seed=3, claims=[Claim("a", "1", "2", holds=False)], figures={})
    monkeypatch.setattr("benchmarks.lambdarank_oracle.run", lambda small: bad)
    assert command.main(["lambdarank_oracle"]) == 1
    assert "| a | 1 | 2 | NO |" in capsys.readouterr().out


def test_a_page_says_size_seed_and_commit_and_how_to_make_it_again():
    found = finding(seed=3, claims=[Claim("a", "1", "1", holds=True)], figures={})
    text = page("some_name", "What it does.", found, small=False, version="abc123")
    wanted = "Size: full. Seed: 3. Commit: abc123. Again: `python -m benchmarks some_name --write --full`."
    assert wanted in text
    assert table(found["claims"]) in text


def test_an_unknown_benchmark_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit, match=re.escape("2")):
        command.main(["speed"])
    assert "no benchmark speed; known: " in capsys.readouterr().err
