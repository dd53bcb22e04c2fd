"""The command line: what a user sees when something is missing or wrong."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from dermedge import UserError, files
from dermedge.bundle.manifest import BundleError, BundleRefused
from dermedge.cli import ask_secret, guarded, main
from dermedge.image.read import write_png

ROOT = Path(__file__).resolve().parents[1]
SHORT = cv2.error("Failed to allocate 81000000 bytes in function 'OutOfMemoryError'")
SHORT.code = cv2.Error.StsNoMem


@pytest.fixture
def picture(tmp_path):
    from dermedge.data.synthetic import draw

    path = tmp_path / "lesion.png"
    write_png(path, draw(1, label="nv").image)
    return path


def test_overview_lists_every_room(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("analyze", "app", "bench", "data", "demo", "evaluate", "export", "train"):
        assert f"\n  {name} " in text
    assert "not a diagnosis" in text


def test_unknown_command(capsys):
    assert main(["diagnose"]) == 2
    assert "no subcommand 'diagnose'" in capsys.readouterr().err


def test_a_working_folder_that_was_deleted_is_no_traceback(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["--version"]) == 0
    assert main(["analyze", "lesion.png", "--bundle", "none.dermbundle"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_extra_is_told_in_one_line(capsys, monkeypatch):
    """A device without torch: its finder says no, as on a machine that lacks the package."""
    for module in list(sys.modules):
        if module.split(".")[0] in ("torch", "train"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    code = main(["train", "classifier", "--recipe", "classifier", "--data", "csv=x"])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "pip install 'dermedge[train]'" in error


def test_missing_bundle_is_one_line(capsys, picture):
    assert main(["analyze", str(picture), "--bundle", "none.dermbundle"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.dermbundle" in error


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["analyze", ""], "a name"),
        (["analyze", "{picture}", "--masks="], "--masks"),
        (["analyze", "{picture}", "--masks", ""], "a name"),
        (["verify", "--bundle", ""], "a name"),
        (["label", "people", "--home="], "--home"),
    ],
)
def test_an_empty_word_is_refused(words, named, capsys, picture, tmp_path, monkeypatch):
    """`analyze "$PICTURE"` analysed all of the working folder, `--home "$STICK"` took another."""
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("{picture}", str(picture)) for word in words]) == 2
    assert capsys.readouterr() == (
        "",
        f"dermedge: {named} is empty: is a variable of the shell not set?\n",
    )


@pytest.mark.parametrize("option", [["--out=~/results.jsonl"], ["--out", "~/results.jsonl"]])
def test_a_home_folder_that_the_shell_left_is_written_out(
    option, picture, tiny_bundle, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["analyze", str(picture), "--bundle", str(tiny_bundle), *option]) == 0
    assert (tmp_path / "results.jsonl").is_file()
    assert not list((tmp_path / "here").iterdir())


def test_analyze_as_text_says_that_it_is_no_diagnosis(capsys, picture, tiny_bundle):
    assert main(["analyze", str(picture), "--bundle", str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    assert str(picture) in text
    assert "not a diagnosis" in text
    assert "generated pictures" in text


def test_a_reader_that_leaves_early_is_no_traceback(picture, tiny_bundle):
    command = [sys.executable, "-m", "dermedge.cli", "analyze", "--bundle", str(tiny_bundle)]
    shell = " ".join(command + [str(picture)] * 40) + " --json | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["image"] == str(picture)
    assert "Traceback" not in done.stderr


def test_device_never_loads_what_it_need_not(picture, tiny_bundle):
    """Start-up time and memory of a kiosk: no torch, no plotting, no window toolkit."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dermedge.cli", "analyze", str(picture)]
        + ["--bundle", str(tiny_bundle), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"cv2", "numpy", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "torchvision", "matplotlib", "kivy", "sklearn", "scipy", "PIL"}
    assert json.loads(done.stdout)["triage"]


def test_no_runtime_reports_to_its_maker(picture, tiny_bundle, tmp_path):
    """What ONNX Runtime's telemetry would send lies in the user's cache first."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(
        [sys.executable, "-m", "dermedge.cli", "analyze", str(picture)]
        + ["--bundle", str(tiny_bundle), "--json"],
        env={**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("names", [("a/x.png", "b/x.png"), ("a/IMG_1.HEIC", "a/img_1.jpg")])
def test_masks_of_equal_names_never_overwrite_each_other(capsys, tmp_path, tiny_bundle, names):
    """Of two in one folder, as of a phone, it was no help to analyse that folder alone."""
    pictures = [tmp_path / name for name in names]
    for picture in pictures:
        picture.parent.mkdir(exist_ok=True)
        picture.touch()
    masks = tmp_path / "masks"
    folders = [str(folder) for folder in sorted({picture.parent for picture in pictures})]
    code = main(["analyze", *folders, "--bundle", str(tiny_bundle), "--masks", str(masks)])
    assert code == 2
    line = capsys.readouterr().err
    assert f"{pictures[0]} and {pictures[1]} would both be drawn as {pictures[1].stem}.png" in line
    assert "each into a folder of its own" in line
    assert not masks.exists()


# Exit status.


def test_a_folder_for_masks_that_is_read_only_is_refused_before_the_work(
    capsys, picture, tmp_path, tiny_bundle, monkeypatch
):
    def refuse(**_words):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    masks = tmp_path / "masks"
    words = ["analyze", str(picture), "--bundle", str(tiny_bundle), "--masks", str(masks)]
    assert main(words) == 1
    assert tuple(capsys.readouterr()) == ("", f"dermedge: {masks}: Read-only file system\n")


def test_the_statuses_are_told_in_help(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for words in ("0 done", "1 it ran, but", "2 wrong use", "130 interrupted"):
        assert words in told
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    assert "Exit status: 0 done" in capsys.readouterr().out


def _behind(error: UserError, cause: OSError) -> UserError:
    try:
        raise error from cause
    except UserError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("give one"), 2, "give one"),
        (FileNotFoundError(2, "No such file", "a.pem"), 2, "a.pem: No such file"),
        (FileExistsError(17, "File exists", "a.pem"), 2, "a.pem: File exists"),
        (FileExistsError(17, "File exists", __file__), 2, ".py: is a file, where a folder is"),
        (IsADirectoryError(21, "Is a directory", "a.pem"), 2, "a.pem: Is a directory"),
        (PermissionError(13, "Permission denied", "a.pem"), 1, "a.pem: Permission denied"),
        (OSError(errno.ENOSPC, "No space left", "a.csv"), 1, "a.csv: No space left"),
        (OSError(errno.EROFS, "Read-only file system", "a.csv"), 1, "a.csv: Read-only"),
        (OSError(errno.EIO, "Input/output error", "a.csv"), 1, "a.csv: Input/output"),
        (TimeoutError(110, "Connection timed out"), 1, "timed out"),
        (BundleRefused("it is damaged"), 1, "it is damaged"),
        (_behind(BundleError("cannot read"), PermissionError(13, "no")), 1, "cannot read"),
        (_behind(BundleError("cannot read"), FileNotFoundError(2, "no")), 2, "cannot read"),
        (OSError(errno.ENOSPC, "No space left"), 1, "dermedge: No space left"),  # of another file
        (MemoryError(), 1, "not enough memory"),
        (SHORT, 1, "not enough memory"),
        (ImportError("libGL.so.1: cannot open", name="cv2"), 1, "loaded here: libGL.so.1: cannot"),
    ],
)
def test_a_fault_of_the_machine_is_no_wrong_use(capsys, error, status, line):
    def run():
        raise error

    assert guarded(run, "dermedge x") == status
    told = capsys.readouterr().err
    assert told.startswith("dermedge: ")
    assert line in told
    assert told.count("\n") == 1


def test_a_key_that_may_not_be_read_is_no_wrong_use(capsys, tiny_bundle, tmp_path, monkeypatch):
    key = tmp_path / "key.pem"
    key.write_text("a key")
    real = Path.read_bytes

    def refuse(path):
        if path == key:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["verify", "--bundle", str(tiny_bundle), "--trusted-key", str(key)]) == 1
    assert capsys.readouterr().err == f"dermedge: {key}: Permission denied\n"
    monkeypatch.setattr(Path, "read_bytes", real)
    assert main(["verify", "--bundle", str(tiny_bundle), "--trusted-key", str(key)]) == 2
    assert main(["verify", "--bundle", str(tiny_bundle), "--trusted-key", f"{key}.none"]) == 2


def test_a_bundle_that_may_not_be_read_is_no_wrong_use(capsys, tiny_bundle, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dermedge.bundle.bundle.open", refuse, raising=False)
    assert main(["verify", "--bundle", str(tiny_bundle)]) == 1
    assert "Permission denied" in capsys.readouterr().err


def _dermedge(*words, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dermedge.cli", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300, **options)


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_a_closed_output_is_no_traceback_and_takes_no_part_in_the_other(
    closed, monkeypatch, capsys
):
    for name in closed:  # as Python finds it
        monkeypatch.setattr(sys, name, None)

    def run() -> int:
        print('{"image": "1.png"}')
        print("dermedge: 2.png: No such file or directory", file=sys.stderr)
        return 1

    assert guarded(run, "dermedge analyze") == 1
    printed = capsys.readouterr()
    assert printed.out == ("" if "stdout" in closed else '{"image": "1.png"}\n')
    assert printed.err.startswith("dermedge: 2.png") == ("stderr" not in closed)


def test_a_secret_that_nobody_types_is_no_traceback(monkeypatch, capsys):
    def run() -> int:
        print(repr(ask_secret("PIN: ")))
        return 0

    monkeypatch.setattr(sys, "stdin", None)  # closed, as Python finds it
    assert guarded(run, "dermedge app") == 0
    assert capsys.readouterr().out == "''\n"
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda words: (_ for _ in ()).throw(EOFError))
    assert guarded(run, "dermedge app") == 130  # Ctrl+D
    assert capsys.readouterr().err == "dermedge app: interrupted\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["verify", "--json"]])
def test_a_full_disk_behind_the_output_is_a_failure(tiny_bundle, words, unbuffered):
    if "verify" in words:
        words = [*words, "--bundle", tiny_bundle]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = _dermedge(*words, stdout=full, env=environment)
    assert done.returncode == 1
    assert done.stderr == "dermedge: standard output: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_behind_a_file_is_a_failure_that_leaves_nothing(tmp_path):
    """`data check` stores its split last: the kernel refuses more than 200 bytes of it."""
    from dermedge.data.synthetic import write_data_set

    write_data_set(tmp_path / "data", 8)
    code = (
        "import resource, sys\n"
        "from dermedge.cli import main\n"
        "sys.dont_write_bytecode = True\n"  # else modules are cut short, too, and stay so
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "out").mkdir()
    split = tmp_path / "out" / "split.json"
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "check", f"procedural={tmp_path / 'data'}"]
        + ["--split", str(split)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"dermedge: {split}: File too large"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [getattr(signal, "SIGHUP", 1), signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_tidies_up_first(tmp_path, number):
    """In the middle of a write; a service manager sees that it ended by the signal it sent. A
    closed terminal says so twice."""
    code = (
        "import os, signal, sys\n"
        # What a shell starts in the background ignores the key.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dermedge import cli, files\n"
        "def stop(*_): os.kill(os.getpid(), int(sys.argv[2]))\n"
        "os.replace, unlink = stop, os.unlink\n"
        "def twice(path):\n"
        "    if int(sys.argv[2]) == getattr(signal, 'SIGHUP', 0): stop()\n"
        "    unlink(path)\n"
        "os.unlink = twice\n"
        "def run():\n"
        "    files.write_atomic(sys.argv[1], 'new')\n"
        "    signal.pause()\n"
        "sys.exit(cli.guarded(run, 'dermedge x'))\n"
    )
    path = tmp_path / "a"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ended = 130 if number == signal.SIGINT else -number
    assert done.returncode == ended, done.stderr
    assert done.stderr.count("\n") == 1
    assert "dermedge x: " in done.stderr
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("a", "old")]


def test_signals_are_as_they_were_afterwards(capsys):
    numbers = [signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
    before = list(map(signal.getsignal, numbers))
    assert main(["--version"]) == 0
    assert main(["nothing"]) == 2
    assert list(map(signal.getsignal, numbers)) == before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_what_goes_on_after_the_terminal_goes_on():
    """As by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded(lambda: os.kill(os.getpid(), signal.SIGHUP) or 7, "dermedge x") == 7
    finally:
        signal.signal(signal.SIGHUP, before)


# Names of others, on a terminal.

EVIL = "a\n\x1b[2J\x1b]0;title\x07\u202e\udcff.png"


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
def test_a_name_cannot_act_on_the_terminal(tmp_path, tiny_bundle):
    from dermedge.data.synthetic import draw

    write_png(tmp_path / "x.png", draw(1, label="nv").image)
    os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + os.fsencode("/" + EVIL))
    (tmp_path / ("b" + EVIL)).write_bytes(b"no picture")
    done = _dermedge("analyze", tmp_path, "--bundle", tiny_bundle, stdout=subprocess.PIPE)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(told)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(str(tmp_path)))
    assert line.startswith(f"{tmp_path}/a\\n\\x1b[2J\\x1b]0;title\\x07\\u202e\\udcff.png: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--bundle", EVIL],
        ["analyze", EVIL],
        ["analyze", "x.png", "--masks", EVIL],
        [EVIL],
        ["data", "check", f"csv={EVIL}"],
        ["data", "check", EVIL],
        ["verify", "--trusted-key", EVIL],
        ["engine", "list", "--out", EVIL],
        ["evaluate", "--data", f"csv={EVIL}"],
    ],
)
def test_no_error_acts_on_the_terminal(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)  # a folder of that name may be made
    main(words)
    printed = capsys.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(printed.out + printed.err)
    assert printed.err.count("\n") <= 1


def _scripts() -> list[Path]:
    """What pages and results call as `python -m ROOM.NAME`."""
    rooms = ("dermedge", "train", "export", "benchmarks", "edge_app")
    files = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    own = ('if __name__ == "__main__":', "argparse.ArgumentParser(")
    here = [file for file in files if all(word in file.read_text("utf-8") for word in own)]
    return [file for file in here if "android" not in file.parts]  # called by Android alone


@pytest.mark.parametrize("path", _scripts(), ids=lambda path: path.stem)
def test_a_script_says_what_its_options_are_and_fails_in_one_line(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    words = [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls]
    named = list(zip([ast.unparse(call.func) for call in calls], words, strict=True))
    (parser,) = [words for name, words in named if name == "argparse.ArgumentParser"]
    assert parser["prog"] == repr(f"python -m {module}")
    assert parser["description"] == "__doc__"
    options = [words for name, words in named if name == "parser.add_argument"]
    assert [words for words in options if "help" not in words] == []
    defaults = [words for words in options if words.get("default", "[]") not in ("[]", "''")]
    assert [words for words in defaults if "default" not in words["help"]] == []
    ends = ast.unparse(tree.body[-1])
    assert re.search(r"(sys\.exit|raise SystemExit)\(+(call|script)\(", ends), ends
