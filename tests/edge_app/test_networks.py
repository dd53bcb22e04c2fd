"""The networks as the app runs them: by as many threads as `dermedge tune` chose."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
from store.store_cases import PASSPHRASE, QUICK

from dermedge import cli, network, tune
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.image.read import write_png
from dermedge.runtime import ExecutionConfig, SessionError, open_session
from edge_app import commands, networks
from edge_app.capture.worker import Snapshot
from edge_app.self_check import running_check
from edge_app.store import derivation
from edge_app.store.store import Store

CHOSEN = {
    "segmenter": ExecutionConfig("fp32", "cpu", 1),
    "classifier": ExecutionConfig("int8", "cpu", 2),
}


@pytest.fixture(autouse=True)
def opened(tmp_path, monkeypatch) -> list[int]:
    """The threads of each session that is opened; the machine has four cores."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(networks, "usable_cores", lambda: 4)
    seen = []

    def spying(model, threads, *words):
        seen.append(threads)
        return open_session(model, threads, *words)

    monkeypatch.setattr(network, "open_session", spying)
    return seen


def keep(bundle: Bundle, chosen: dict[str, ExecutionConfig]) -> None:
    tune.store(bundle, [tune.Result(*one, chosen=True) for one in chosen.items()])


@pytest.mark.parametrize(
    ("cores", "stored", "run"),
    [
        (4, None, [3, 3]),  # nothing was chosen
        (1, None, [1, 1]),
        (4, (1, 2), [1, 2]),
        (4, (4, 0), [3, 3]),  # all cores, and the runtime's own number, which is that
        (2, (1, 2), [1, 1]),
        (1, (1, 1), [1, 1]),
    ],
)
def test_the_app_runs_what_was_chosen_and_leaves_the_screen_a_core(
    both, opened, cores, stored, run, monkeypatch
):
    monkeypatch.setattr(networks, "usable_cores", lambda: cores)
    if stored:
        roles = zip(("segmenter", "classifier"), stored, strict=True)
        keep(both, {role: ExecutionConfig("fp32", "cpu", count) for role, count in roles})
    networks.load_analyzer(both)
    assert opened == run


def test_a_choice_that_starts_no_more_leaves_the_app_the_bundles_own_graphs(
    both, opened, tmp_path, monkeypatch, capsys
):
    """As after an update of a driver: the kiosk stood still, and nothing said why."""

    def failing(model, threads, provider, *words):
        if provider != "cpu":
            raise SessionError("its driver is gone")
        return opening(model, threads, provider, *words)

    opening = network.open_session
    monkeypatch.setattr(network, "open_session", failing)
    execution = ExecutionConfig("fp32", "openvino", 1)
    keep(both, dict.fromkeys(both.manifest.models, execution))
    assert tune.load_tuned(both)
    networks.load_analyzer(both)
    assert opened == [3, 3]
    line = "what `dermedge tune` chose is ignored, its driver is gone; run it again\n"
    assert capsys.readouterr().err == f"dermedge: {line}"
    write_png(tmp_path / "a.png", draw(1).image)
    command = ["analyze", "--bundle", str(both.path), str(tmp_path / "a.png")]
    assert cli.main(command) == 2
    assert "gone; `dermedge tune` chose to run the networks so: run" in capsys.readouterr().err
    assert cli.main([*command, "--provider", "openvino"]) == 2
    assert capsys.readouterr().err == "dermedge: its driver is gone\n"


def app(bundle: Bundle, _folder: Path) -> None:
    commands._open_analyzer(_words(bundle))


def self_check(bundle: Bundle, folder: Path) -> None:
    commands._self_check(_words(bundle, "--home", str(folder)))


def _words(bundle: Bundle, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands.APP.arguments(parser)
    return parser.parse_args(["--bundle", str(bundle.path), "--source", "/dev/video99", *more])


def check_in_the_app(bundle: Bundle, folder: Path) -> None:
    worker = SimpleNamespace(bundle=bundle, snapshot=lambda: Snapshot(fault="x"))
    assert next(running_check(worker, folder)).ok


def label(bundle: Bundle, folder: Path) -> None:
    Store.create(folder / "cases.db", PASSPHRASE).close()
    (folder / "secret").write_text(PASSPHRASE)
    words = ["label", "ask", "--by", "Ames", "--role", "nurse", "--bundle", str(bundle.path)]
    place = ["--home", str(folder), "--passphrase-file", str(folder / "secret")]
    assert cli.main([*words, *place]) == 0


def analyze(bundle: Bundle, folder: Path) -> None:
    write_png(folder / "a.png", draw(1, size=(96, 128)).image)
    assert cli.main(["analyze", str(folder / "a.png"), "--bundle", str(bundle.path)]) == 0


@pytest.mark.parametrize("way", [app, self_check, check_in_the_app, label, analyze])
def test_whatever_opens_a_bundle_for_a_person_runs_what_was_chosen(
    both, opened, tmp_path, way, monkeypatch
):
    monkeypatch.setattr(derivation, "ARGON2", QUICK)
    keep(both, CHOSEN)
    way(both, tmp_path)
    assert opened == [1, 2]
