"""What every run of the suite has: a line that says how far it is, and the marker `process` for PostgreSQL's tests."""

from __future__ import annotations

import time

import pytest

from tests.postgresql import server_url, url

__all__ = ["server_url", "url"]
"""Fixtures of every test."""

SAY_EVERY_S = 10.0
"""Between two lines of progress."""

NEEDS_PROCESS = frozenset({"server_url", "url"})
"""Fixtures that start a PostgreSQL server."""


class Progress:
    """Prints how many tests are done, how many failed, and which one runs, in place of a dot for each test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._start = self._said = time.monotonic()
        self._total = self._done = self._failed = 0
        self._now = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._total = len(items)

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """The workers collect, and each of them collects everything."""
        self._total = len(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._now = nodeid

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        return ("passed", "", "PASSED") if report.passed and report.when == "call" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed += report.failed
        if report.when == "teardown":
            self._done += 1
        now = time.monotonic()
        if now - self._said < SAY_EVERY_S:
            return
        self._said = now
        minutes, seconds = divmod(int(now - self._start), 60)
        failed = f", {self._failed} failed" if self._failed else ""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(f"{minutes}:{seconds:02} {self._done} of {self._total}{failed}, now {self._now}")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist reports to the process that started it
        config.pluginmanager.register(Progress(config), "hutong-progress")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_PROCESS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)
