"""A plugin for pytest: the tests that a TOML file lists may fail, all others must pass, and how
many pass must not drop.

The file has `least`, the number of tests that pass at least, and tables `failing` with a `reason`,
the names of `tests`, and `run = false` if these are not run, since they would wait for a time
limit.
"""

import tomllib

import pytest


def pytest_addoption(parser):
    parser.addoption("--expectations", required=True, help="the TOML file")


def pytest_configure(config):
    with open(config.getoption("--expectations"), "rb") as file:
        config.pluginmanager.register(_Expectations(tomllib.load(file)))


class _Expectations:
    def __init__(self, file):
        self._least = file["least"]
        self._failing = file["failing"]
        self._passed = set()
        self._failed = set()

    def pytest_collection_modifyitems(self, items):
        by_name = {item.nodeid: item for item in items}
        for group in self._failing:
            for name in group["tests"]:
                if name not in by_name:
                    raise pytest.UsageError(f"no such test: {name}")
                by_name[name].add_marker(pytest.mark.xfail(reason=group["reason"], run=group.get("run", True), strict=False))

    def pytest_runtest_logreport(self, report):
        # A subtest reports under the name of its test, whose own report is "passed".
        if report.failed or (report.skipped and hasattr(report, "wasxfail")):
            self._failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus == pytest.ExitCode.OK and len(self._passed - self._failed) < self._least:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        listed = sum(len(group["tests"]) for group in self._failing)
        passed = self._passed - self._failed
        terminalreporter.write_line(f"{len(passed)} tests pass, at least {self._least} must; {listed} are listed as failing")
        for group in self._failing:
            for name in passed.intersection(group["tests"]):
                terminalreporter.write_line(f"passes, and need not be listed: {name}")
