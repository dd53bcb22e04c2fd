"""`dermedge demo` resumes, starts afresh when asked, and never touches a foreign folder."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from dermedge import UserError
from dermedge.cli import demo, main
from dermedge.data import Split, synthetic


@pytest.fixture
def ran(monkeypatch):
    """Titles of the steps that were executed, and a list of words whose step is to fail.

    Only the check of the data is real: the others need the split that it writes.
    """
    titles: list[str] = []
    fail: list[str] = []

    def record(step):
        if any(word in step.title for word in fail):
            raise UserError(f"'{step.title}' failed")
        titles.append(step.title)
        if step.title.startswith("check"):
            assert main([*step.command[3:]]) == 0
        else:
            step.makes.parent.mkdir(exist_ok=True)
            step.makes.touch()

    monkeypatch.setattr(demo, "_execute", record)
    monkeypatch.setattr(demo, "PICTURES", 24)
    small = partial(synthetic.write_data_set, size=(96, 128))
    monkeypatch.setattr(synthetic, "write_data_set", small)
    return titles, fail


@pytest.mark.parametrize(
    ("platform", "line"),
    [("linux", "dermedge app --source 'my demo'"), ("win32", 'dermedge app --source "my demo"')],
)
def test_a_command_stands_there_as_the_systems_shell_takes_it(monkeypatch, platform, line):
    monkeypatch.setattr(demo.sys, "platform", platform)
    assert demo._typed("app", "--source", "my demo") == line


def test_the_whole_way_then_resume_then_fresh(ran, tmp_path, capsys):
    titles, fail = ran
    out = tmp_path / "my demo"
    fail.append("export")
    assert main(["demo", "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") >= 1
    assert len(titles) == 4

    fail.clear()
    assert main(["demo", "--out", str(out)]) == 0
    assert len(titles) == demo.STEPS
    assert len(set(titles)) == demo.STEPS
    said = capsys.readouterr().out
    assert said.count("done before") == 4
    assert str(out / "report.html") in said
    assert f"  dermedge app --bundle '{out / 'demo.dermbundle'}' " in said  # a shell takes it so
    assert "not a diagnosis" in said

    assert main(["demo", "--out", str(out)]) == 0
    assert len(titles) == demo.STEPS

    (out / "mine.txt").write_text("precious")
    assert main(["demo", "--out", str(out), "--fresh"]) == 2
    assert "holds other files (mine.txt)" in capsys.readouterr().err
    (out / "mine.txt").unlink()
    (out / ".DS_Store").write_bytes(b"of somebody who looked")
    assert main(["demo", "--out", str(out), "--fresh"]) == 0
    assert len(titles) == 2 * demo.STEPS


def test_a_changed_step_runs_all_that_follow_again(ran, tmp_path, monkeypatch):
    titles, _ = ran
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    changed = {**demo.RECIPES["generated"], "classifier": ("--recipe", "other")}
    monkeypatch.setitem(demo.RECIPES, "generated", changed)
    titles.clear()
    assert main(["demo", "--out", str(out)]) == 0
    assert titles[0] == "train the classifier"
    assert len(titles) == demo.STEPS - 3


def test_what_was_deleted_is_made_again(ran, tmp_path):
    titles, _ = ran
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    (out / "demo.dermbundle").unlink()
    titles.clear()
    assert main(["demo", "--out", str(out)]) == 0
    assert titles[0].startswith("export")
    assert len(titles) == demo.STEPS - 4


def test_samples_have_a_name_each(tmp_path):
    """Of a table with P1/1.jpg and P2/1.jpg, analyze refused to draw both, at every run."""
    rows = [f"P{n}/{n % 3}.jpg" for n in range(20)]
    for row in rows:
        (tmp_path / row).parent.mkdir()
        (tmp_path / row).touch()
    lines = (f"{row},{row},{'nv' if n % 2 else 'mel'}\n" for n, row in enumerate(rows))
    (tmp_path / "data.csv").write_text("id,image,diagnosis\n" + "".join(lines))
    source = f"csv={tmp_path}"
    Split("csv", 0, {"train": (), "val": (), "test": tuple(rows)}).save(tmp_path / "split.json")
    samples = demo._samples(tmp_path, source)
    assert sorted(sample.name for sample in samples) == ["0.jpg", "1.jpg", "2.jpg"]
    assert samples == demo._samples(tmp_path, source)


def test_a_foreign_folder_is_left_alone(ran, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["demo", "--out", str(tmp_path), "--fresh"]) == 2
    assert "other files" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_limit_of_generated_pictures_is_refused(ran, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--limit", "50"]) == 2
    assert "--limit is for --data" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_wrong_data_set_throws_no_demo_away(ran, tmp_path, capsys):
    (tmp_path / demo.STATE).write_text("[]")
    (tmp_path / "report.html").write_text("precious")
    wrong = f"ham10000={tmp_path / 'missing'}"
    assert main(["demo", "--out", str(tmp_path), "--fresh", "--data", wrong]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "precious"


def test_a_step_is_a_process_whose_output_is_kept(tmp_path):
    def step(code: str) -> demo.Step:
        return demo.Step("a step", (sys.executable, "-c", code), tmp_path / "made", prints=True)

    demo._execute(step("print('seen')"))
    assert (tmp_path / "made").read_text() == "seen\n"
    for code in ("raise SystemExit(1)", "print('half'); raise SystemExit(2)"):
        with pytest.raises(UserError, match="'a step' failed"):
            demo._execute(step(code))
    assert (tmp_path / "made").read_text() == "seen\n"


def test_what_goes_on_after_an_interruption_is_not_thrown_away(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo._execute(demo.Step("train", ("dermedge",), demo.Path("run")))
    assert "goes on from here (without --fresh)" in capsys.readouterr().err
