"""Runs a throwaway Airflow on loopback (scheduler, DAG processor, API server) and speaks REST with it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from sameworld.store.code import PROJECT

SERVICES = ("api-server", "dag-processor", "scheduler")
OVER = ("success", "failed")


def settings(home: Path, port: int) -> dict[str, str]:
    """What makes an Airflow small, quick to notice, and blind to the machine's own."""
    address, secret = f"http://127.0.0.1:{port}", secrets.token_hex(32)
    options = {
        "CORE__DAGS_FOLDER": PROJECT / "dags",
        "CORE__PLUGINS_FOLDER": home / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 2,
        "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": "tester:admin",
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": address,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secret,
        "API_AUTH__JWT_SECRET": secret,
        # A writer waits a minute for another, not SQLite's five seconds, which a busy machine exceeds.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 600,
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
        "SCHEDULER__ENABLE_HEALTH_CHECK": False,
        "USAGE_DATA_COLLECTION__ENABLED": False,
    }
    return {f"AIRFLOW__{name}": str(value) for name, value in options.items()}


def environment(home: Path, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    ours = {"AIRFLOW_HOME": home, "SAMEWORLD_ROOT": home / "root", "SAMEWORLD_CACHE": home / "cache",
            "PYTHONPATH": PROJECT}  # fmt: skip
    return {**inherited, **{name: str(value) for name, value in ours.items()}, **settings(home, port)}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Airflow:
    """A running Airflow; each service leads a session of its own, in which all that it starts stays."""

    home: Path
    address: str
    env: dict[str, str]
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    token: str = ""

    def processes(self) -> list[psutil.Process]:
        """Return every living process that belongs to it."""
        return [one for one in psutil.process_iter(["status"]) if self._owns(one)]

    def _owns(self, process: psutil.Process) -> bool:
        sessions = {service.pid for service in self.services.values()}
        try:
            return os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    def end(self) -> None:
        """End all of it: TERM to each service's group, wait, KILL what is left."""
        for service in self.services.values():
            if service.poll() is None:
                os.killpg(service.pid, signal.SIGTERM)
        psutil.wait_procs(self.processes(), timeout=15)
        for left in self.processes():
            left.kill()
        for service in self.services.values():
            service.wait(timeout=15)
        psutil.wait_procs(self.processes(), timeout=15)

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Stop all services for a while, at a moment when none of them writes.

        SQLite refuses, at once, a writer that had read before another wrote. PostgreSQL lets it wait.
        """
        self.until(self._stopped_unlocked, 60)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _stopped_unlocked(self) -> bool:
        self._signal(signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(self.home / "airflow.db", timeout=0)) as database:
                database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._signal(signal.SIGCONT)
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        for service in self.services.values():
            os.killpg(service.pid, number)

    def command(self, *arguments: str) -> str:
        """Run ``airflow …`` as a person would, and return what it printed; a failure fails with its words."""
        done = subprocess.run([sys.executable, "-m", "airflow", *arguments], env=self.env, cwd=self.home, text=True,
                              capture_output=True, timeout=180, check=False)  # fmt: skip
        assert done.returncode == 0, f"airflow {' '.join(arguments)}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def ask(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the REST API; an answer that is no success fails with its words."""
        answer = requests.request(
            verb, f"{self.address}{path}", json=body, headers={"Authorization": f"Bearer {self.token}"}, timeout=120
        )
        assert answer.ok, f"{verb} {path}: {answer.status_code} {answer.text}\n{self.last_words()}"
        return answer.json()

    def log_in(self) -> None:
        passwords = self.home / "simple_auth_manager_passwords.json.generated"
        login = {"username": "tester", "password": json.loads(passwords.read_text())["tester"]}
        self.token = self.ask("POST", "/auth/token", login)["access_token"]

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.address}/api/v2/version", timeout=5).ok
        except requests.RequestException:
            return False

    def knows(self, dag: str) -> bool:
        return any(one["dag_id"] == dag for one in self.ask("GET", "/api/v2/dags?exclude_stale=false")["dags"])

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> str:
        """Trigger a run without a logical date and return its id."""
        run = self.ask("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def outcome(self, dag: str, run: str, seconds: float = 480) -> str:
        """Wait until a run is over and return its state; a task that has to be tried again fails the test at once."""
        self.until(lambda: self._is_over(dag, run), seconds, lambda: f"{run}: {self.task_states(dag, run)}")
        return self.state(dag, run)

    def _is_over(self, dag: str, run: str) -> bool:
        failed = [name for name, state in self.task_states(dag, run).items() if state == "up_for_retry"]
        logs = self.home.glob(f"logs/dag_id={dag}/run_id={run}/task_id={failed[0] if failed else ''}/*.log")
        assert not failed, f"{failed} failed\n" + "\n".join(log.read_text()[-3000:] for log in logs)
        return self.state(dag, run) in OVER

    def state(self, dag: str, run: str) -> str:
        return str(self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=100")[
            "task_instances"
        ]
        return found

    def runs(self, dag: str, run_type: str) -> list[dict[str, Any]]:
        """Return a DAG's runs of one type, oldest first."""
        path = f"/api/v2/dags/{dag}/dagRuns?run_type={run_type}&order_by=run_after&limit=100"
        found: list[dict[str, Any]] = self.ask("GET", path)["dag_runs"]
        return found

    def task_states(self, dag: str, run: str) -> dict[str, str]:
        return {one["task_id"]: one["state"] for one in self.tasks(dag, run)}

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """Return what a task left in XCom, None if it left nothing."""
        entries = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries"
        if key not in {one["key"] for one in self.ask("GET", entries)["xcom_entries"]}:
            return None
        return self.ask("GET", f"{entries}/{key}?deserialize=true")["value"]

    def until(self, holds: Callable[[], bool], seconds: float, what: Callable[[], str] = lambda: "") -> None:
        """Wait until something holds; fail with the services' last words if it takes too long or one has died."""
        last = time.monotonic() + seconds
        while not holds():
            dead = [name for name, service in self.services.items() if service.poll() is not None]
            assert not dead, f"{dead} died\n{self.last_words()}"
            assert time.monotonic() < last, f"not within {seconds} s. {what()}\n{self.last_words()}"
            time.sleep(1)

    def last_words(self) -> str:
        logs = sorted(self.home.glob("*.out"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


@contextmanager
def live_airflow(home: Path) -> Iterator[Airflow]:
    """Start an Airflow in a folder, its working directory too, and end all of it afterwards."""
    port = free_port()
    env = environment(home, port)
    airflow = Airflow(home, f"http://127.0.0.1:{port}", env)
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, cwd=home, check=True,
                   capture_output=True, timeout=180)  # fmt: skip
    try:
        for name in SERVICES:
            airflow.services[name] = _started(name, env, home)
        airflow.until(airflow.is_up, 120)
        airflow.log_in()
        airflow.until(lambda: airflow.knows("retrain"), 120)
        yield airflow
    finally:
        airflow.end()


def _started(name: str, env: dict[str, str], home: Path) -> subprocess.Popen[bytes]:
    with (home / f"{name}.out").open("wb") as out:
        return subprocess.Popen([sys.executable, "-m", "airflow", name], env=env, cwd=home, stdout=out,
                                stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
