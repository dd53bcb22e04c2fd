"""What the simulated year counts."""

import json
import runpy
import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes

from benchmarks.accuracy import simulated_year as year
from dermedge import UserError
from dermedge.data import parse_source
from dermedge.data.records import DataSet, Record

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def pool(rng: np.random.Generator, count: int) -> year.Pool:
    classes = rng.integers(0, 2, count)
    features = rng.normal(size=(count, 3)) + 1.5 * classes[:, None]
    return year.Pool(features, classes.astype(str), classes == 1, np.arange(count).astype(str))


def test_labels_needed_are_read_between_months():
    curve = np.array([0.5, 0.6, 0.8])
    assert year.needed(curve, 0.7, 10) == pytest.approx(year.FIRST + 15)
    assert year.needed(curve, 0.4, 10) == year.FIRST
    assert year.needed(curve, 0.9, 10) == np.inf


def test_a_year_learns_and_its_curves_are_aucs():
    rng = np.random.default_rng(1)
    train, part = pool(rng, 360), pool(rng, 60)
    years = {}
    for strategy in ("random", "product"):
        scores = np.stack([year.simulate(train, part, strategy, seed, 5) for seed in range(2)])
        assert scores.shape == (2, year.MONTHS + 1, 60)
        years[strategy] = year.compared(scores, part.malignant)
    assert (year.simulate(train, part, "random", 0, 5) == scores[0]).sum() < scores[0].size
    found = year.summary(years, part, 5, 20)
    assert found["random"]["auc"][-1] > 0.9
    assert found["random"]["labels_for_randoms_end"] <= year.FIRST + 60
    from dermedge.evaluation.metrics import roc_auc

    mean = np.mean([roc_auc(one[-1], part.malignant) for one in scores])
    assert found["product"]["auc"][-1] == pytest.approx(mean, abs=1e-4)


DIAGNOSES = {"nevus": False, "melanoma": True, "lentigo?": None}


def run(monkeypatch, diagnoses) -> dict:
    """A short year on pictures of these diagnoses, of features that say nothing."""
    records = tuple(
        Record(f"{n}", Path("x.png"), diagnosis=word, malignant=DIAGNOSES[word], patient_id=f"p{n}")
        for n, word in enumerate(diagnoses)
    )
    monkeypatch.setattr(year, "load", lambda *_: DataSet("folders", Path(), records, (), "CC0"))
    drawn = np.random.default_rng(0).normal(size=(len(records), 3))
    monkeypatch.setattr(year, "read_features", lambda some, *_: drawn[: len(some)])
    short = {"seeds": 1, "monthly": 5, "resamples": 5}
    return year.run(
        Namespace(
            data="folders=home/x",
            out="home/year.json",
            features="x",
            part="val",
            strategies=["random"],
            **short,
        )
    )


class _Parsed(Exception):
    """What a command was understood as."""


def understood(command: str, monkeypatch) -> Namespace:
    """The arguments of a command as its parser takes them today; its work is not begun."""
    python, option, module, *words = shlex.split(command)
    assert (python, option) == ("python", "-m")
    parse = ArgumentParser.parse_args

    def stop(parser, given=None, namespace=None):
        raise _Parsed(parse(parser, given, namespace))

    with monkeypatch.context() as patched:
        patched.setattr(ArgumentParser, "parse_args", stop)
        patched.setattr(sys, "argv", [module, *words])
        patched.delitem(sys.modules, module, raising=False)
        with pytest.raises(_Parsed) as parsed:
            runpy.run_module(module, run_name="__main__")
    return parsed.value.args[0]


def test_the_commands_of_stored_results_run_today(monkeypatch):
    """Some named no --data, or no folder beside its name: whoever repeated them was refused."""
    stored = sorted(RESULTS.rglob("*.json"))
    commands = [json.loads(path.read_text()) for path in stored]
    commands = [one["command"] for one in commands if isinstance(one, dict) and "command" in one]
    own = [command for command in commands if command.startswith("python -m")]
    assert len(own) > 3
    for command in own:
        found = understood(command, monkeypatch)
        if source := getattr(found, "data", None):
            parse_source(source)


def test_features_are_kept_whole_under_the_name_that_was_given(monkeypatch, tmp_path):
    """numpy put .npz behind it, so that nothing was found again; half a file was a traceback."""
    seen = []

    def analyze(image):
        seen.append(image)
        return SimpleNamespace(embedding=np.ones(3, np.float32))

    monkeypatch.setattr(
        "dermedge.analyzer.Analyzer", lambda _bundle: SimpleNamespace(analyze=analyze)
    )
    records, bundle = [Record("a", tmp_path / "a.png")], SimpleNamespace(sha256="0")
    cache = tmp_path / "features"
    for content, times in ((b"small", 1), (b"small", 1), (b"large", 2)):  # of the same id
        (tmp_path / "a.png").write_bytes(content)
        assert year.read_features(records, cache, bundle).tolist() == [[1, 1, 1]]
        assert len(seen) == times
    for content in (b"", cache.read_bytes()[:90], b"id,diagnosis\n"):
        cache.write_bytes(content)
        with pytest.raises(UserError, match="holds no features of a simulated year"):
            year.read_features(records, cache, bundle)
        assert cache.read_bytes() == content
    np.savez(tmp_path / "own.npz", mine=np.ones(2))
    with pytest.raises(UserError, match="holds no features of a simulated year"):
        year.read_features(records, tmp_path / "own.npz", bundle)


def test_what_is_not_known_to_be_malignant_is_not_benign(monkeypatch, tmp_path):
    result = run(monkeypatch, ["nevus", "melanoma", "lentigo?"] * 60)
    assert result["left_out"] == 60
    assert result["train_pictures"] + result["pictures"] <= 120
    assert (result["data"], len(result["bundle_sha256"])) == ("folders", 64)
    assert understood(result["command"], monkeypatch).data == "folders=x"
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda _self, title, **_: titles.append(title))
    year.draw(result, tmp_path / "year.png")
    assert "folders" in titles[0]
    with pytest.raises(UserError, match="train part of folders lacks"):
        run(monkeypatch, ["nevus", "lentigo?"] * 40)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere=x", "--out", "year.json"], "no reader for 'nowhere'"),
        (["--data", "pad_ufes_20=x", "--out", "year.json", "--seeds", "0"], "--seeds must be 1"),
        (["--data", "pad_ufes_20=x", "--out", "."], "is a folder"),
    ],
)
def test_wrong_use_is_said_in_a_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["simulated_year.py", *words])
    monkeypatch.delitem(sys.modules, year.__name__)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(year.__name__, run_name="__main__")
    assert ended.value.code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
