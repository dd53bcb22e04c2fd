"""Benchmarks of colour spaces and of damage, on drawn pictures."""

from __future__ import annotations

import csv
import io
import sys
from importlib import import_module

import numpy as np
import pytest
from evaluations import rewritten
from PIL import Image

from benchmarks.corruptions import colours, damage, scales
from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.data.synthetic import draw, write_data_set


@pytest.fixture(scope="module")
def analyzer(tiny_bundle) -> Analyzer:
    return Analyzer(Bundle.open(tiny_bundle))


def test_colours(tmp_path, tiny_bundle, capsys):
    write_data_set(tmp_path / "drawn", 4)
    out = tmp_path / "spaces.csv"
    data = f"procedural={tmp_path / 'drawn'}"
    words = ["--data", data, "--bundle", str(tiny_bundle), "--count", "4", "--out", str(out)]
    assert colours.main(words) == 0
    next((tmp_path / "drawn").rglob("images/*")).write_bytes(b"words")  # all was lost by one
    assert colours.main(words) == 1  # the same rows again
    rows = list(csv.DictReader(out.open()))
    assert [row["space"] for row in rows] == list(colours.SPACES)
    assert {row["sha256"] for row in rows} == {Bundle.open(tiny_bundle).sha256[:16]}
    for row in rows:
        assert (row["pictures"], float(row["advice_unchanged"])) == ("3", 1.0)
        assert float(row["malignancy_median"]) < 0.01
        assert 0 < float(row["pixel_mean"]) < 1


@pytest.mark.parametrize("content", ["damage,seeds\ncut,5\n", "words", ""])
def test_another_table_is_refused_before_the_work(content, tmp_path, tiny_bundle):
    out = tmp_path / "other.csv"
    out.write_text(content)
    words = ["--bundle", str(tiny_bundle), "--out", str(out)]
    with pytest.raises(UserError, match="no table with the columns data, bundle"):
        colours.main(["--data", "procedural=none", *words])
    with pytest.raises(UserError, match="no table with the columns bundle, sha256"):
        damage.main([str(tmp_path), *words])
    assert out.read_text() == content


@pytest.mark.parametrize(
    ("module", "work", "words"),
    [
        ("corruptions.colours", "load", ["--data", "procedural=x", "--bundle", "x"]),
        ("corruptions.damage", "open_bundle", [".", "--bundle", "x"]),
        ("corruptions.scales", "_measured", ["--count", "1"]),
        ("accuracy.coverage", "counted", []),
        ("accuracy.evaluation_throughput", "open_bundle", ["--data", "procedural=x"]),
        ("latency.crossing", "measure", []),
        ("arm64", "open_bundle", ["x.png"]),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(module, work, words, tmp_path, monkeypatch):
    """Minutes of it were lost."""
    script = import_module(f"benchmarks.{module}")
    monkeypatch.setattr(script, work, None)
    (tmp_path / "file").touch()
    words = [*words, "--out", str(tmp_path / "file" / "figures")]
    monkeypatch.setattr(sys, "argv", ["script", *words])
    with pytest.raises(OSError, match="file"):
        script.main()


def test_a_picture_of_another_space_has_other_numbers():
    pixels = draw(0, size=(64, 80)).image
    for profile in colours.SPACES.values():
        opened = Image.open(io.BytesIO(colours.in_space(pixels, profile)))
        assert opened.info["icc_profile"] == profile
        assert np.abs(np.asarray(opened).astype(int) - pixels).mean() > 2


def test_pictures_that_cannot_be_read_are_named_where_a_reference_is_looked_for(tmp_path, capsys):
    """They were left out without a word; of none at all, "found 0" stood there."""
    path = tmp_path / "a.png"
    path.write_bytes(b"words")
    data_set = DataSet("folders", tmp_path, (Record("a", path),), (), "")
    with pytest.raises(UserError, match="none of 1 pictures of folders can be read"):
        scales._found_in("folders", data_set, "card", 5)
    assert f"not read: {path}: " in capsys.readouterr().err


def test_rows_of_another_bundle_stay(analyzer, tiny_bundle, tmp_path):
    """They took the place of the first bundle's, and neither row said whose it was."""
    Image.fromarray(draw(0, size=(64, 80)).image).save(tmp_path / "a.jpg")
    other = rewritten(analyzer.bundle, tmp_path, "other")
    out, words = tmp_path / "damage.csv", ["--kinds", "cut", "--seeds", "1", "--bundle"]
    for bundle in (tiny_bundle, other.path, tiny_bundle):
        damage.main([str(tmp_path), "--out", str(out), *words, str(bundle)])
    hashes = [row["sha256"] for row in csv.DictReader(out.open())]
    assert hashes == [one.sha256[:16] for one in (other, analyzer.bundle)]


def test_damage_is_done_to_the_picture_not_to_its_thumbnail(tmp_path, tiny_bundle):
    """Phones put one into the header: its table was changed, and all were "identical"."""
    buffer = io.BytesIO()
    Image.fromarray(draw(0, size=(64, 80)).image).save(buffer, "JPEG")
    small = b"Exif\0\0" + buffer.getvalue()
    whole = buffer.getvalue()
    phone = whole[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + whole[2:]
    assert damage._coded(phone) == damage._coded(whole) + len(small) + 4
    broken = damage._wrong_table(phone, np.random.default_rng(0))
    assert broken[: len(small) + 6] == phone[: len(small) + 6]
    assert broken != phone
    Image.fromarray(draw(0, size=(64, 80)).image).save(tmp_path / "a.jpg", "PNG")
    with pytest.raises(UserError, match=r"a\.jpg is no JPEG"):
        damage.main([str(tmp_path), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "t.csv")])


@pytest.mark.parametrize("kind", ["hole", "zeroed"])
def test_damage_lies_within_a_picture_that_is_nearly_all_header(kind):
    """A quarter of the file was more than there is of the picture: numpy's traceback."""
    buffer = io.BytesIO()
    Image.fromarray(draw(0, size=(64, 80)).image).save(buffer, "JPEG", comment=b"x" * 60_000)
    whole = buffer.getvalue()
    for seed in range(5):
        broken = damage.KINDS[kind](whole, np.random.default_rng(seed))
        assert broken != whole
        assert broken[: damage._coded(whole)] == whole[: damage._coded(whole)]
        assert broken[-2:] == b"\xff\xd9"


@pytest.mark.parametrize("kind", damage.KINDS)
def test_damage(kind, analyzer, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(draw(0, size=(320, 400)).image).save(path, quality=90)
    row = damage.measure(kind, [path], 2, analyzer)
    assert tuple(row) == damage.COLUMNS
    assert row["files"] == 2 == row["refused"] + row["identical"] + row["slightly_different"]
    if kind in ("cut", "hole", "restart marker lost", "wrong Huffman table"):
        assert row["refused"] == 2
    if not row["slightly_different"]:
        assert row["judged_differently"] == 0
