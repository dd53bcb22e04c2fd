"""Other runtimes beside ours: nothing is timed that does not answer the same."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from commands import call

from benchmarks.commands import peers
from benchmarks.commands.peers import PEERS
from benchmarks.peers import measure, runtimes
from benchmarks.peers.compared import ROUNDS, SAME, Side
from benchmarks.peers.compared import compared as compared_rows
from benchmarks.peers.pipelines import analysis_answer
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.runtime import ExecutionConfig, SessionError
from dermedge.tune import Result


def compared(**sides):
    sides = {name: Side(name, lambda side=side: side) for name, side in sides.items()}
    inputs, limit = [np.ones(3), np.zeros(3)], SAME["probabilities"]
    rows = compared_rows("what", sides, inputs, 1, 0.0, lambda _: None, limit)
    return {row["side"]: row for row in rows}


def test_only_what_answers_the_same_is_timed():
    def broken(_):
        raise ValueError("no such\nlayer")

    rows = compared(
        ours=lambda x: x, same=lambda x: x + 1e-5, other=lambda x: x + 0.1, broken=broken
    )
    assert rows["ours"]["times_of_ours"] == 1
    assert rows["same"]["turns"] == ROUNDS[0]
    assert rows["same"]["ms"] > 0
    assert "differ by 0.1" in rows["other"]["reason"]
    assert "ms" not in rows["other"]
    assert rows["broken"]["reason"] == "not measured: ValueError: no such layer"


def test_one_wrong_number_among_many_is_not_averaged_away():
    right, wrong = np.zeros(1000), np.zeros(1000)
    right[0] = wrong[1] = 0.3
    rows = compared(ours=lambda x: right, theirs=lambda x: wrong)
    assert "0.3 at most" in rows["theirs"]["reason"]
    assert "ms" not in rows["theirs"]


def test_what_is_not_installed_is_told():
    def missing():
        import no_such_runtime  # noqa: F401

    sides = {
        "ours": Side("numpy", lambda: lambda x: x),
        "theirs": Side("no-such-runtime", missing),
    }
    limit = SAME["probabilities"]
    rows = compared_rows("what", sides, [np.ones(3)], 1, 0.0, lambda _: None, limit)
    assert rows[1]["reason"] == "not measured: no_such_runtime is not installed"
    assert rows[0]["version"].startswith("numpy ")


def test_without_ours_there_is_nothing_to_compare_with():
    def broken(_):
        raise ValueError("no")

    with pytest.raises(SessionError, match="no"):
        compared(ours=broken)


def test_table_holds_the_columns_that_it_says():
    rows = compared(ours=lambda x: x)
    table = [{name: rows["ours"].get(name) for name in measure.COLUMNS}]
    assert next(csv.reader([measure.to_csv(table).splitlines()[0]])) == list(measure.COLUMNS)


def test_the_command_names_the_bundle(tiny_bundle, tmp_path, monkeypatch):
    given: list[str] = []
    monkeypatch.setattr(measure, "measure", lambda *args, **_: given.append(args[4]) or [])
    call(PEERS, "--bundle", tiny_bundle, "--runs", "runs/a", "--out", tmp_path / "peers.csv")
    words = f"dermedge peers --bundle {tiny_bundle.name} --runs a --threads 1 --seconds 30"
    assert given == [words]


def test_a_full_disk_costs_no_figures(tiny_bundle, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError("No space left on device")

    rows = [dict.fromkeys(measure.COLUMNS, "") | {"side": "theirs", "reason": "not installed"}]
    monkeypatch.setattr(measure, "measure", lambda *_, **__: rows)
    monkeypatch.setattr(peers, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        call(PEERS, "--bundle", tiny_bundle, "--runs", "a", "--out", tmp_path / "peers.csv")
    assert "not installed" in capsys.readouterr().out


def test_a_run_of_another_network_is_refused(tiny_bundle):
    with pytest.raises(UserError, match="--runs"):
        measure.networks(Bundle.open(tiny_bundle), [])


def test_a_slice_for_another_machine_is_refused_in_a_line(tiny_bundle, monkeypatch):
    """Of its networks there is nothing to tune here: KeyError."""
    own = Result("segmenter", ExecutionConfig("fp32", "cpu", 0), ms=1.0)
    monkeypatch.setattr(measure, "tune", lambda *_, **__: [own, replace(own, role="classifier")])
    with pytest.raises(UserError, match="has no classifier to time on this processor"):
        measure.tuned_executions(Bundle.open(tiny_bundle), 1, 0.01, lambda _: None)


def test_the_tuned_execution_keeps_to_the_threads_and_answers(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    executions = measure.tuned_executions(bundle, 1, 0.01, lambda _: None)
    assert set(executions) == {"segmenter", "classifier"}
    assert {config.threads for config in executions.values()} == {1}
    square = measure.squares(bundle, "classifier")[0]
    own = runtimes.session(bundle, "classifier", 1, "cpu")(square)
    tuned = runtimes.execution(bundle, "classifier", executions["classifier"])(square)
    assert np.abs(tuned - own).max() < 1e-5


def test_what_is_outside_the_networks_is_told(tiny_bundle):
    shares = []
    answer = analysis_answer(Bundle.open(tiny_bundle), 1, {}, shares)
    risk, area = answer(np.full((72, 128, 3), 200, np.uint8))
    assert 0 <= risk <= 1
    assert 0 <= area <= 1
    assert 0 < shares[0] < 1
