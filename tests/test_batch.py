"""Many pictures in one run: resumed, from an object store, and on a cluster as on one machine."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from contextlib import closing
from types import SimpleNamespace

import cv2
import pytest

from dermedge import UserError, cluster
from dermedge.batch import Options, Results, content_of, find_sources, stem
from dermedge.cli import analyze as analyze_command
from dermedge.data.synthetic import draw
from dermedge.image.read import write_png

LABELS = ("mel", "nv", "bcc")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Nine lesions in two folders, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("archive")
    for part in ("a", "b"):
        (folder / part).mkdir()
    for number in range(9):
        picture = draw(number, size=(120, 160), label=LABELS[number % 3]).image
        write_png(folder / "ab"[number % 2] / f"{number}.png", picture)
    (folder / "a" / "broken.jpg").write_bytes(b"no picture at all")
    return folder


def analyze(tiny_bundle, *arguments, status=0):
    command = [sys.executable, "-m", "dermedge.cli", "analyze", "--bundle", str(tiny_bundle)]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stderr
    return done


def rows(text):
    """The JSON lines without what a clock says."""
    found = [json.loads(line) for line in text.splitlines()]
    for row in found:
        row.pop("timing_ms", None)
    return found


def test_a_run_that_was_stopped_goes_on(tiny_bundle, archive, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    done = analyze(tiny_bundle, archive, "--out", whole, status=1)
    assert "broken.jpg" in done.stderr
    lines = whole.read_bytes().split(b"\n")
    assert len(lines) == 11
    # Stopped in the middle of the sixth line; the first that failed is tried again.
    out.write_bytes(b"\n".join([*lines[:5], lines[5][:40]]))
    options = tmp_path / "out.jsonl.options.json"
    options.write_bytes((tmp_path / "whole.jsonl.options.json").read_bytes())
    untouched = [line for line in lines[:5] if b'"error"' not in line]
    analyze(tiny_bundle, archive, "--out", out, status=1)
    after = out.read_bytes()
    assert after.startswith(b"\n".join(untouched))
    key = lambda row: row["image"]  # noqa: E731
    assert sorted(rows(after.decode()), key=key) == sorted(rows(whole.read_text()), key=key)


def test_results_go_into_a_file_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="is no file: name one"):
            Results(path, None, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("times", ["killed", "killed ahead", "behind"])
def test_a_picture_that_took_the_name_of_another_is_analysed(tmp_path, times):
    picture, out = tmp_path / "1.jpg", tmp_path / "out.jsonl"
    picture.touch()

    names = [str(picture), str(tmp_path / "gone.jpg"), "s3://bucket/1.jpg"]

    def results():
        return Results(out, SimpleNamespace(sha256=""), Options(), names)

    with closing(results()) as first:
        stated = tmp_path / "out.jsonl.options.json"
        before = stated.read_text()
        for name in names:
            first.add({"image": name})
    with closing(results()) as again:
        assert len(again.places) == 3
    lasting = [str(tmp_path / "gone.jpg"), "s3://bucket/1.jpg"]
    if times == "killed":  # by an earlier version, before it could say which files they were
        stated.write_text(json.dumps({**json.loads(stated.read_text()), "files": {}}))
        os.utime(out, (0, 0))
    elif times == "killed ahead":  # by a loss of power, after which the clock is an earlier one
        stated.write_text(before)
        picture.write_bytes(b"another person's")
        os.utime(out, (4e9, 4e9))
    else:  # by a camera whose clock is behind, as on a card that keeps its times alone
        picture.write_bytes(b"another person's")
        os.utime(out, (4e9, 4e9))
    with closing(results()) as again:
        assert list(again.places) == lasting


def test_an_archive_goes_on_in_little_memory(tmp_path):
    """All lines were held, each in ten times its bytes: 100,000 pictures took 5 GB."""
    out = tmp_path / "out.jsonl"

    def results():
        return Results(out, SimpleNamespace(sha256=""), Options())

    with closing(results()) as first:
        for number in range(60):
            row = {"image": f"s3://{number}.jpg", "outline": "x" * 50_000}
            first.add(row if number % 3 else {**row, "error": "not read"})
    whole = out.stat().st_size
    tracemalloc.start()
    with closing(results()) as again:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        again.add({"image": "s3://0.jpg"})
        assert [again.row(name)["image"] for name in again.places] == list(again.places)
    assert most < whole / 4
    assert len(again.places) == len(out.read_text().splitlines()) == 41


def test_equal_names_in_another_folder_are_not_mixed(tmp_path, monkeypatch):
    def results():
        return Results(tmp_path / "out.jsonl", SimpleNamespace(sha256=""), Options())

    for clinic in ("one", "two"):
        (tmp_path / clinic).mkdir()
        (tmp_path / clinic / "1.jpg").touch()
        monkeypatch.chdir(tmp_path / clinic)
        if clinic == "one":
            with closing(results()) as first:
                first.add({"image": "1.jpg"})
    before = (tmp_path / "out.jsonl").read_text()
    with pytest.raises(UserError, match=r"holds results of pictures in .*one, where"):
        results()
    assert (tmp_path / "out.jsonl").read_text() == before


@pytest.mark.skipif(os.name == "nt", reason="there an open file is not replaced")
@pytest.mark.parametrize("how", ["another run", "deleted"])
def test_a_file_of_results_that_is_another_one_now_is_told(tmp_path, how):
    def results():
        return Results(tmp_path / "out.jsonl", SimpleNamespace(sha256=""), Options())

    first = results()
    first.add({"image": "1.jpg"})
    if how == "another run":
        results().close()
    else:
        (tmp_path / "out.jsonl").unlink()
    with closing(first), pytest.raises(UserError, match="give each run a file of its own"):
        first.add({"image": "2.jpg"})


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_the_results_names_their_file(tmp_path):
    path = tmp_path / "out.jsonl"
    with closing(Results(path, SimpleNamespace(sha256=""), Options())) as results:
        results.add({"image": "1.jpg"})
        file = results._file
        with (
            open("/dev/full", "ab", buffering=0) as results._file,
            pytest.raises(OSError, match="No space left") as raised,
        ):
            results.add({"image": "2.jpg"})
        results._file = file
    assert raised.value.filename == str(path)
    assert path.read_text() == '{"image": "1.jpg"}\n'


def short_of_memory(*_, **__):
    error = cv2.error("Failed to allocate 81000000 bytes in function 'OutOfMemoryError'")
    error.code = cv2.Error.StsNoMem
    raise error


def test_a_picture_that_memory_is_short_for_ends_no_batch(capsys, monkeypatch):
    row, found = Options().outcome(SimpleNamespace(analyze=short_of_memory), "1.jpg")
    assert found is None
    assert analyze_command._named(row) == "1.jpg: not enough memory for this picture"
    row = {"image": "a\n1.jpg", "error": r"a\n1.jpg: the file is empty"}
    assert analyze_command._named(row) == row["error"]
    monkeypatch.setattr(analyze_command, "_write_pictures", short_of_memory)
    assert not analyze_command._drawn(None, SimpleNamespace(image="1.jpg"), None)
    assert capsys.readouterr().err == "dermedge: 1.jpg: not enough memory to draw it\n"


def test_results_of_other_options_are_not_mixed(tiny_bundle, archive, tmp_path):
    out = tmp_path / "out.jsonl"
    analyze(tiny_bundle, archive / "b", "--out", out)
    before = out.read_bytes()
    done = analyze(tiny_bundle, archive / "b", "--out", out, "--px-per-mm", 12, status=2)
    assert "results of another px_per_mm" in done.stderr
    (tmp_path / "notes.txt").write_text("a list of mine\n")
    done = analyze(tiny_bundle, archive / "b", "--out", tmp_path / "notes.txt", status=2)
    assert "cannot be read" in done.stderr
    assert out.read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "a list of mine\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "ray"], "add --out FILE or --json"),
        (["--engine", "ray", "--json", "--masks", "m"], "--masks needs --engine local"),
        (["--engine", "ray", "--json", "--workers", "0"], "--workers must be 1 or more"),
        (["--workers", "2"], "need --engine ray"),
        (["--threads", "999999"], "--threads must be 0 (the runtime's choice) to 1024"),
        (["--out", "x", "--explain", "e"], "--explain cannot go with --out"),
    ],
)
def test_options_that_contradict_each_other(tiny_bundle, archive, tmp_path, options, message):
    done = analyze(tiny_bundle, archive, *options, status=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_object_store_as_a_folder(tiny_bundle, archive, tmp_path):
    pytest.importorskip("pyarrow")
    here = rows(analyze(tiny_bundle, archive / "b", "--json").stdout)
    there = rows(analyze(tiny_bundle, f"file://{archive}/b", "--json").stdout)
    for row in there:
        row["image"] = row["image"].removeprefix("file://")
    assert there == here
    (tmp_path / "raw.nef").touch()
    write_png(tmp_path / "a.png", draw(1, size=(120, 160), label="nv").image)
    drawn = [word for name in ("outlines", "explain") for word in (f"--{name}", tmp_path / name)]
    done = analyze(tiny_bundle, f"file://{tmp_path}", *drawn)
    assert "such pictures are not read (.nef; files: 1)" in done.stderr
    assert all((tmp_path / name / "a.png").stat().st_size for name in ("outlines", "explain"))
    done = analyze(tiny_bundle, f"file://{archive}/none", "--json", status=2)
    assert "none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = analyze(tiny_bundle, "nonsense://bucket/folder", "--json", status=2)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("query", ["", "?use_mmap=false"])
def test_names_in_an_object_store_are_read_as_they_are(tmp_path, query):
    pytest.importorskip("pyarrow")
    names = ["A.jpg", "%41.jpg", "50%.jpg", "a #1 (2).jpg", "q?x.jpg", "\u00e4+b.jpg"]
    for name in names:
        (tmp_path / name).write_text(name)
    sources, _ = find_sources([f"file://{tmp_path}/{query}"])
    assert sorted(content_of(source).decode() for source in sources) == sorted(names)


def test_pictures_in_an_object_store_are_drawn_under_their_own_names():
    """Options of the store, as an address of its own, are no part of them."""
    options = "?scheme=http&endpoint_override=http://192.168.1.5:9000"
    names = [stem(f"s3://bucket/a.b/{name}.jpg{options}") for name in ("1.2", "c")]
    assert names == ["1.2", "c"]
    assert stem("a/what?.jpg") == "what?"


def test_what_is_too_large_in_an_object_store_is_not_read(tmp_path, monkeypatch):
    fs = pytest.importorskip("pyarrow.fs")
    with open(tmp_path / "slide.tif", "wb") as file:
        file.truncate(6 << 30)
    # It has no way to read one.
    system = SimpleNamespace(get_file_info=fs.LocalFileSystem().get_file_info)
    monkeypatch.setattr(
        fs, "FileSystem", SimpleNamespace(from_uri=lambda _: (system, str(tmp_path / "slide.tif")))
    )
    row, _ = Options().outcome(SimpleNamespace(analyze=None), f"file://{tmp_path}/slide.tif")
    assert row["error"] == "the file has 6442 MB, at most 100 MB are read: save it smaller"


def test_an_object_store_tells_what_it_leaves_out_as_a_folder_does(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / ".trash").mkdir()
    for name in ("1.jpg", ".trash/2.jpg", "3.dng", ".trash/4.dng"):
        (tmp_path / name).touch()
    for name in (str(tmp_path), f"file://{tmp_path}"):
        assert find_sources([name]) == ([f"{name}/1.jpg"], [f"{name}/3.dng"])


@pytest.mark.parametrize("fails", ["make", "work"])
def test_what_a_machine_of_a_cluster_refuses_comes_home_as_a_line(fails):
    def refuse(*_):
        raise UserError("there is no\n engine")

    actor = cluster._Actor(refuse if fails == "make" else lambda: refuse)
    (result,) = actor({"item": [pickle.dumps("1.jpg")]})["result"]
    with pytest.raises(UserError, match=r"^--engine ray: on a machine .*: there is no engine$"):
        cluster._home(result)
    assert cluster._home(pickle.dumps({"image": "1.jpg"})) == {"image": "1.jpg"}


@pytest.mark.slow
def test_two_workers_of_a_cluster_say_what_one_process_says(tiny_bundle, archive, tmp_path):
    pytest.importorskip("ray")
    here = rows(analyze(tiny_bundle, archive, "--json", status=1).stdout)
    out = tmp_path / "out.jsonl"
    words = [archive, "--engine", "ray", "--workers", 2, "--out", out]
    done = analyze(tiny_bundle, *words, status=1)
    assert rows(out.read_text()) == here
    assert "broken.jpg" in done.stderr
    assert "Traceback" not in done.stderr
