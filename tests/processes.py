"""`pytest --processes N`: the tests are collected once, and N forks of the process that collected them take them from one queue.

Each process of xdist imports and collects everything for itself and tells six times of every test, one write each. For thousands of tests
of a millisecond that is a fifth of all the work.
"""

import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import pytest

SEND_SECONDS = 0.2
NUMBER_OCTETS = 4
BROKEN = 70


class Processes:
    """Runs what was collected in so many forks, and reports as if it had run here. Warnings are errors here, so it carries none."""

    def __init__(self, number: int) -> None:
        self._number = number

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest's own loop says what is wrong, or that there is nothing to run
        if threading.active_count() > 1:
            raise pytest.UsageError(f"a module starts a thread when it is imported, and forks have none: {threading.enumerate()}")
        files = [list(items) for _, items in itertools.groupby(session.items, key=lambda item: item.path)]
        queue = _queue(len(files))
        folder: Path = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # what the fixture tmp_path_factory gives
        children: dict[Connection, int] = {}
        try:
            for number in range(self._number):
                here, there = Pipe(duplex=False)
                if not (process := os.fork()):
                    _run(session, files, queue, there, folder / f"process-{number}")
                there.close()
                children[here] = process
            missing = _gather(session, children, queue)
        finally:
            for process in children.values():
                os.kill(process, signal.SIGTERM)  # none is left but after an interruption
            os.close(queue)
        for item, reason in missing:
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", f"{item.nodeid}: {reason}", "call")
            session.config.hook.pytest_runtest_logreport(report=report)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        return True


def _queue(files: int) -> int:
    """A pipe from which each number of a file is read once, by one process: the tests of a file share what it makes for them."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(number.to_bytes(NUMBER_OCTETS) for number in range(files)))
    os.close(writing)
    return reading


def _taken(files: Sequence[Sequence[pytest.Item]], queue: int) -> Iterator[pytest.Item]:
    while number := os.read(queue, NUMBER_OCTETS):
        yield from files[int.from_bytes(number)]


def _gather(session: pytest.Session, children: dict[Connection, int], queue: int) -> list[tuple[pytest.Item, str]]:
    """Report what the processes send until each has ended. The tests without a result, and why that is so."""
    hook, reported, ends = session.config.hook, set[str](), list[str]()
    while children:
        for sender in wait(list(children)):
            assert isinstance(sender, Connection)
            try:
                received = sender.recv()
            except EOFError:
                status = os.waitstatus_to_exitcode(os.waitpid(children.pop(sender), 0)[1])
                ends += [f"status {status}"] if status else []
                continue
            for serialized in received:
                report: pytest.TestReport = hook.pytest_report_from_serializable(config=session.config, data=serialized)
                hook.pytest_runtest_logreport(report=report)
                if report.when == "call" or not report.passed:
                    reported.add(report.nodeid)
                    hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
        if session.shouldfail:
            while os.read(queue, NUMBER_OCTETS):  # there is nothing more to take
                pass
    reason = f"a process ended with {', '.join(ends) or 'nothing wrong'}"
    missing = [] if session.shouldfail else [item for item in session.items if item.nodeid not in reported]
    if ends and not missing:
        session.shouldfail = reason
    return [(item, f"no result, for {reason}") for item in missing]


class _Silent(pytest.TerminalReporter):  # type: ignore[misc]  # final, but what others write with must be one
    """The first process tells of the tests."""

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None: ...

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None: ...

    def pytest_runtest_logfinish(self, nodeid: str) -> None: ...


class _Reports:
    """Sends a process' reports, some at a time."""

    def __init__(self, config: pytest.Config, to: Connection) -> None:
        self._config, self._to, self._sent = config, to, time.monotonic()
        self._whole = config.option.durations is not None
        self._waiting: list[object] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when != "call" and not self._whole:
            return  # nobody shows it
        self._waiting.append(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))
        if report.failed or time.monotonic() - self._sent > SEND_SECONDS:
            self.send()

    def send(self) -> None:
        self._to.send(self._waiting)
        self._waiting, self._sent = [], time.monotonic()


def _run(session: pytest.Session, files: Sequence[Sequence[pytest.Item]], queue: int, to: Connection, folder: Path) -> None:
    """What a fork does; it never comes back."""
    status = BROKEN
    plugins = session.config.pluginmanager
    capture, tmpdir = plugins.get_plugin("capturemanager"), plugins.get_plugin("tmpdir")
    try:
        assert capture is not None
        assert tmpdir is not None
        capture.stop_global_capturing()  # its files are every fork's
        capture.start_global_capturing()
        plugins.unregister(name="terminalreporter")
        plugins.register(_Silent(session.config), "terminalreporter")  # others ask for what it writes with
        session.config.option.basetemp = folder
        tmpdir.pytest_configure(session.config)
        reports = _Reports(session.config, to)
        plugins.register(reports)
        items = _taken(files, queue)
        item = next(items, None)
        while item and not session.shouldfail:
            following = next(items, None)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
        reports.send()
        status = 0
    except BaseException:
        if capture is not None:
            capture.stop_global_capturing()
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # what is left of the session is the first process'
