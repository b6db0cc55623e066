"""A try that everybody took for dead wakes up while, or after, its retry ran: both name one artifact of the same bytes.

A process stops itself (SIGSTOP) at one of its puts, as a worker does whose machine hangs; another process runs the same
step to its end; then the first goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from core.core_builders import everything_below, in_another_process, two_tables

PUTS = 4  # a.parquet, b.parquet, record.json, manifest.json
SLEEPS = """
import os, signal
real, left = blobs.FolderBlobs.put_if_absent, [int(sys.argv[2])]
def put(self, key, content):
    left[0] -= 1
    if left[0] == 0: os.kill(os.getpid(), signal.SIGSTOP)
    return real(self, key, content)
blobs.FolderBlobs.put_if_absent = put
made = two_tables(sys.argv[1])
print(json.dumps({"uri": made.uri, "content": made.verify().content_hash}))
"""


def asleep(root: Path, number: int) -> subprocess.Popen[str]:
    """Start a try that stops itself before its n-th put, and wait until it has."""
    running = subprocess.Popen(in_another_process(SLEEPS, str(root), str(number)), stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(running.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return running


def woken(running: subprocess.Popen[str]) -> dict[str, str]:
    running.send_signal(signal.SIGCONT)
    answer = running.communicate(timeout=60)[0]
    assert running.returncode == 0
    return json.loads(answer)


@pytest.mark.parametrize("number", range(1, PUTS + 1))
def test_fault_42_a_try_that_wakes_after_its_retry_names_the_same_artifact_and_changes_no_byte(
    tmp_path: Path, number: int
) -> None:
    zombie = asleep(tmp_path, number)
    retry = two_tables(tmp_path).verify()
    before = everything_below(Path(retry.uri))
    assert woken(zombie) == {"uri": retry.uri, "content": retry.content_hash}
    assert everything_below(Path(retry.uri)) == before


def test_fault_42_two_tries_that_both_sleep_before_they_publish_agree(tmp_path: Path) -> None:
    first, second = asleep(tmp_path, PUTS), asleep(tmp_path, PUTS)
    answers = [woken(second), woken(first)]
    clean = two_tables(tmp_path / "clean")
    assert answers[0] == answers[1]
    assert answers[0]["content"] == clean.content_hash
    assert two_tables(tmp_path).uri == answers[0]["uri"]
