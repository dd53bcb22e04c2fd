"""The app's first start: what runs fastest is measured once, in the pauses of the analysis."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dermedge import UserError, tune
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.runtime import ExecutionConfig
from edge_app import first_tune, tune_process
from edge_app.capture.worker import Worker
from edge_app.first_tune import MOST_ATTEMPTS, FirstTune, Pauses, Stopped
from edge_app.kiosk import Journal
from edge_app.tune_process import Found, Link, measure, tune_linked

OWN = ExecutionConfig("fp32", "cpu", 0)
FASTER = {"segmenter": OWN, "classifier": ExecutionConfig("int8", "cpu", 1)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "providers", lambda: ["cpu"])
    monkeypatch.setattr(tune, "PICTURES", 2)
    monkeypatch.setattr(tune, "ROUNDS", (2, 3))
    monkeypatch.setattr(first_tune, "_POLL", 0)
    return tmp_path / "cache"


@pytest.fixture
def bundle(both) -> Bundle:
    return both


class Start:
    """One start of the app: what was measured, used and logged in it."""

    def __init__(self, bundle: Bundle, found: Found | Exception | None = None):
        self.measured, self.used, self.logged = 0, 0, []
        self.found = found or Found(FASTER, 4, 0)
        self.tuning = FirstTune(bundle, lambda: True, self._use, self._log, self._measure)
        self.tuning.start()
        for thread in threading.enumerate():
            if thread.name == "dermedge-tuning":
                thread.join()
        assert self.tuning.message() is None
        self.tuning.stop()

    def _measure(self, _bundle, gate) -> Found:
        self.measured += 1
        assert self.tuning.message() is not None  # it is shown that it measures
        gate.wait(12.3)
        assert "13 seconds at most" in self.tuning.message()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def _use(self) -> None:
        self.used += 1

    def _log(self, event, **values) -> None:
        self.logged.append((event, values["result"]))


def files(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.rglob("*") if path.is_file())


def test_the_first_start_measures_and_the_second_does_not(bundle, cache):
    first = Start(bundle)
    assert (first.measured, first.used, first.logged) == (1, 1, [("tune", "faster")])
    assert tune.load_tuned(bundle) == FASTER
    assert files(cache) == [".json"]
    second = Start(bundle)
    assert (second.measured, second.used, second.logged) == (0, 0, [])


def test_who_has_tuned_before_is_left_alone(bundle):
    own = dict.fromkeys(FASTER, OWN)
    tune.store(bundle, [tune.Result(*item, chosen=True) for item in own.items()])
    assert Start(bundle).measured == 0
    assert tune.load_tuned(bundle) == own


def test_what_the_command_chose_meanwhile_stays(bundle):
    by_command = dict.fromkeys(FASTER, replace(OWN, threads=1))

    class Meanwhile(Start):
        def _measure(self, bundle, gate) -> Found:
            tune.store(bundle, [tune.Result(*item, chosen=True) for item in by_command.items()])
            return super()._measure(bundle, gate)

    start = Meanwhile(bundle)
    assert (start.measured, start.used, start.logged) == (1, 1, [("tune", "faster")])
    assert tune.load_tuned(bundle) == by_command


def test_where_nothing_is_faster_the_app_goes_on_as_it_is(bundle):
    start = Start(bundle, Found(dict.fromkeys(FASTER, OWN), 2, 0))
    assert (start.used, start.logged) == (0, [("tune", "unchanged")])
    assert Start(bundle).measured == 0


def test_another_bundle_and_another_runtime_are_measured(bundle, tiny_bundle, monkeypatch):
    Start(bundle)
    other = dict.fromkeys(FASTER, replace(OWN, threads=1))
    assert Start(Bundle.open(tiny_bundle), Found(other, 2, 0)).measured == 1
    here = tune.machine()
    monkeypatch.setattr(tune, "machine", lambda: {**here, "onnxruntime": "99.0"})
    assert Start(bundle).measured == 1
    assert Start(bundle).measured == 0
    monkeypatch.setattr(tune, "__version__", "99.0")
    assert Start(bundle).measured == 1


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (Stopped(), "stopped"),
        (UserError("it died"), "failed"),
        (OSError(12, "no process"), "failed"),
        (ZeroDivisionError(), "failed"),
        (Found(FASTER, 0, 9), "failed"),  # there was time for nothing
    ],
)
def test_what_fails_leaves_no_choice_and_is_tried_again_a_few_times(
    bundle, cache, found, result, capsys
):
    for _ in range(MOST_ATTEMPTS):
        start = Start(bundle, found)
        assert (start.measured, start.used, start.logged) == (1, 0, [("tune", result)])
        assert tune.load_tuned(bundle) == {}
        assert files(cache) == [".attempts"]
        capsys.readouterr()
    start = Start(bundle)
    assert (start.measured, start.logged) == (0, [("tune", "gave-up")])
    assert "run `dermedge tune`" in capsys.readouterr().err
    # As `dermedge tune --forget` says, the app then measures at its next start.
    tune.forget(bundle)
    assert Start(bundle).measured == 1


def test_another_runtime_is_tried_though_one_was_given_up(bundle, monkeypatch):
    for _ in range(MOST_ATTEMPTS):
        Start(bundle, UserError("it died"))
    here = tune.machine()
    monkeypatch.setattr(tune, "machine", lambda: {**here, "onnxruntime": "99.0"})
    assert Start(bundle).measured == 1


def test_a_runtime_that_is_installed_later_is_measured(bundle, monkeypatch):
    Start(bundle)
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "openvino"])
    for _ in range(MOST_ATTEMPTS):
        assert Start(bundle, UserError("it died")).measured == 1
    assert Start(bundle).measured == 0
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "openvino", "tensorrt"])
    assert Start(bundle).measured == 1
    assert tune.load_tuned(bundle) == FASTER


@pytest.mark.parametrize("content", [b"{", b"[" * 60_000, b"\xff", b"[]", b'{"attempts": "x"}'])
def test_a_count_that_cannot_be_read_counts_nothing(bundle, cache, content):
    Start(bundle, Stopped())
    (path,) = cache.rglob("*.attempts")
    path.write_bytes(content)
    assert Start(bundle).measured == 1


def test_a_kiosk_without_a_place_to_write_says_so_in_its_journals(
    bundle, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    start = Start(bundle)
    assert (start.measured, start.logged) == (0, [("tune", "unwritable")])
    told = capsys.readouterr().err  # what systemd keeps
    assert told.count("\n") == 1
    assert "XDG_CACHE_HOME" in told


@pytest.mark.parametrize(
    "result", ["faster", "unchanged", "stopped", "unwritable", "failed", "gave-up"]
)
def test_the_kiosk_log_takes_each_end(tmp_path, result):
    journal = Journal(tmp_path / "kiosk.log")
    journal.write("tune", result=result, seconds=41, untried=2)
    journal.close()
    assert f"tune result={result} seconds=41" in (tmp_path / "kiosk.log").read_text()


# ------------------------------------------------------------------------ in the pauses


def test_measuring_waits_while_something_is_analysed():
    asked = iter([False, False, True])
    pauses = Pauses(lambda: next(asked))
    pauses.wait(7.0)
    assert next(asked, None) is None  # until it was answered yes
    assert pauses.left == 7.0


def test_an_app_that_ends_does_not_wait_for_the_pause():
    pauses = Pauses(lambda: False)
    pauses.end()
    with pytest.raises(Stopped):
        pauses.wait(7.0)


def test_the_next_picture_is_analysed_by_the_faster_network(bundle):
    worker = Worker(lambda: None, Analyzer(bundle), None)
    worker.live(False)
    assert worker.resting
    worker.live(True)
    assert not worker.resting
    faster = Analyzer(bundle, executions=FASTER)
    worker.use(faster)
    assert worker.processor.analyzer is faster
    assert worker.bundle.sha256 == bundle.sha256


# ------------------------------------------------------------------------ the process


class AppSide:
    """Has the process wait for 100 s each time that it asks, and keeps its messages."""

    def __init__(self, quiet="yes", wait=100.0, late=0.0):
        self.now, self.messages = 0.0, []
        self.quiet, self.wait, self.late = quiet, wait, late
        self.link = Link(self.read, self.write, self.clock)

    def clock(self) -> float:
        self.now += 0.001
        return self.now

    def write(self, line: str) -> None:
        self.messages.append(json.loads(line))

    def read(self) -> str:
        self.now += self.late
        if self.messages[-1]["kind"] == "quiet":
            return self.quiet + "\n"
        self.now += self.wait
        return f"{self.wait}\n"


def test_the_process_tells_what_it_chose_and_pauses_cost_it_nothing(bundle):
    app = AppSide()
    tune_linked(app.link, str(bundle.path), bundle.sha256, 0.0)
    *asked, found = app.messages
    assert found["kind"] == "found"
    assert set(found["executions"]) == {"segmenter", "classifier"}
    assert found["timed"] > 2
    assert found["untried"] == 0
    assert {message["kind"] for message in asked} == {"wait", "quiet"}
    left = [message["left"] for message in asked if "left" in message]
    assert min(left) > tune_process.LIMIT - 10  # though it waited 100 s for each answer


def test_answers_that_a_busy_device_delays_count_as_they_do_for_the_app(bundle):
    """They did not, and the app ended the process: 'a runtime hangs'."""
    app = AppSide(wait=0.0, late=2.0)
    tune_linked(app.link, str(bundle.path), bundle.sha256, 0.0)
    assert app.messages[-1]["kind"] == "found"
    assert app.now < tune_process.MOST


def test_what_was_disturbed_is_not_timed(bundle):
    app = AppSide(quiet="no")
    tune_linked(app.link, str(bundle.path), bundle.sha256, 0.0)
    assert app.messages[-1]["timed"] == 0


def test_a_process_whose_app_is_gone_ends(bundle):
    link = Link(lambda: "", lambda line: None, lambda: 0.0)
    with pytest.raises(SystemExit):
        tune_linked(link, str(bundle.path), bundle.sha256, 0.0)


def test_another_file_than_the_app_checked_is_refused(bundle):
    with pytest.raises(UserError, match="another file than at the start"):
        tune_linked(AppSide().link, str(bundle.path), "0" * 64, 0.0)


class Open:
    """A gate that is open `times` times, and ends then."""

    def __init__(self, times: int = 99):
        self.times, self.left = times, []

    def wait(self, left: float) -> None:
        self.left.append(left)
        if len(self.left) >= self.times:
            raise Stopped

    def quiet(self) -> bool:
        return True

    def check(self) -> None:
        pass


SAYS = """
import json, sys
print("a line of a library", flush=True)
print(json.dumps({"kind": "wait", "left": 3}), flush=True)
assert 0 <= float(sys.stdin.readline()) < 9
print(json.dumps({"kind": "quiet"}), flush=True)
assert sys.stdin.readline() == "yes\\n"
"""
FOUND = """
execution = {"precision": "int8", "provider": "cpu", "threads": 1}
print(json.dumps(
    {"kind": "found", "executions": {"classifier": execution}, "timed": 3, "untried": 1}))
"""


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        ("raise SystemExit(7)", r"died \(status 7\)"),
        ('print(json.dumps({"kind": "error", "line": "no such bundle"}))', "no such bundle"),
    ],
)
def test_a_process_that_fails_is_told_of_in_one_line(bundle, ending, fault):
    with pytest.raises(UserError, match=fault):
        measure(bundle, Open(), program=("-c", SAYS + ending))


def test_what_the_process_found_comes_back(bundle):
    gate = Open()
    found = measure(bundle, gate, program=("-c", SAYS + FOUND))
    assert found == Found({"classifier": ExecutionConfig("int8", "cpu", 1)}, 3, 1)
    assert gate.left == [3.0]


@pytest.mark.parametrize("printed", [b"\xff\n", b"half a line"])
def test_what_a_native_library_prints_is_no_message(bundle, printed):
    program = f"""
import os
from edge_app import tune_process

def found(link, *_):
    os.write(1, {printed!r})
    link.wait(3)
    link.tell("found", executions={{}}, timed=3, untried=1)

tune_process.tune_linked = found
tune_process.main("", "")
"""
    assert measure(bundle, Open(), most=20.0, program=("-c", program)) == Found({}, 3, 1)


def test_a_runtime_that_hangs_is_ended(bundle):
    with pytest.raises(UserError, match="a runtime hangs"):
        measure(bundle, Open(), most=0.0, program=("-c", "import sys; sys.stdin.read()"))


def test_the_real_process_asks_first_and_ends_with_the_app(bundle, cache):
    gate = Open(times=2)
    with pytest.raises(Stopped):
        measure(bundle, gate, most=600.0)
    assert len(gate.left) == 2
    assert not cache.exists()  # it writes nothing
