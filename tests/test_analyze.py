"""From a picture to a decision, as the command line and the device see it."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dermedge import cli
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.explain import explain
from dermedge.image.read import Picture, read_image, read_mask, write_png

SCHEMA = json.loads(files("dermedge").joinpath("analysis.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def analyzer(tiny_bundle):
    return Analyzer(Bundle.open(tiny_bundle), threads=1)


def _analyze(*arguments, tiny_bundle, timeout=300):
    command = [sys.executable, "-m", "dermedge.cli", "analyze", "--bundle", str(tiny_bundle)]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.parametrize("label", ["mel", "nv", "bcc", "vasc"])
@pytest.mark.parametrize("style", ["dermoscopy", "phone"])
def test_every_analysis_fits_the_schema(analyzer, tmp_path, label, style):
    path = tmp_path / "x.png"
    write_png(path, draw(5, style=style, label=label).image)
    found = analyzer.analyze(path).to_json()
    VALIDATOR.validate(json.loads(json.dumps(found)))
    assert abs(sum(found["probabilities"].values()) - 1) < 1e-4


def test_dark_lesion_is_found_where_it_is(analyzer, tmp_path):
    """The tiny segmenter marks what is dark: the outline must lie on it, in the file's px."""
    image = np.full((900, 1200, 3), 215, np.uint8)
    cv2.ellipse(image, (700, 400), (160, 110), 0, 0, 360, (60, 40, 35), -1)
    truth = image[..., 0] < 128
    path = tmp_path / "x.png"
    write_png(path, image)
    analysis = analyzer.analyze(path)
    x, y, width, height = analysis.lesion.box
    assert abs(x - 540) < 12
    assert abs(y - 290) < 12
    assert abs(width - 320) < 24
    assert abs(height - 220) < 24
    mask = analysis.full_mask()
    assert mask.shape == truth.shape
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert abs(analysis.lesion.area_px / truth.sum() - 1) < 0.08
    drawn = np.zeros(truth.shape, np.uint8)
    cv2.fillPoly(drawn, [np.rint(p).astype(np.int32) for p in analysis.lesion.polygons], 1)
    assert (mask & (drawn > 0)).sum() / (mask | (drawn > 0)).sum() > 0.95


def test_reduced_and_turned_photograph_keeps_its_own_coordinates(analyzer, tmp_path):
    """A 12 megapixel portrait: decoded small, reported in px of the upright picture."""
    from PIL import Image

    image = np.full((3000, 4000, 3), 215, np.uint8)
    cv2.circle(image, (1000, 2200), 500, (60, 40, 35), -1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / "portrait.jpg"
    Image.fromarray(image).save(path, quality=90, exif=exif)
    analysis = analyzer.analyze(path)
    assert (analysis.width, analysis.height) == (3000, 4000)
    x, y, width, height = analysis.lesion.box
    # (x, y) of the stored picture comes to lie at (2999 - y, x).
    assert abs(x - (3000 - 2700)) < 60
    assert abs(y - 500) < 60
    assert abs(width - 1000) < 80
    assert abs(height - 1000) < 80


@pytest.mark.parametrize(("gray", "triage"), [(40, "urgent"), (112, "see a doctor"), (180, "low")])
def test_triage_follows_the_bundle_thresholds(analyzer, monkeypatch, gray, triage):
    from dermedge.image.read import Picture
    from dermedge.lesion.quality import Quality

    good = Quality(ok=True, reasons=(), scores={})
    monkeypatch.setattr("dermedge.analyzer.assess", lambda *_: good)
    pixels = np.full((64, 64, 3), gray, np.uint8)
    analysis = analyzer.analyze(Picture(pixels, 64, 64), name="x")
    assert analysis.triage == triage
    assert f"{analysis.malignancy:.3f}" in analysis.rule


def test_unusable_picture_gets_no_risk_band(analyzer, tmp_path):
    path = tmp_path / "black.png"
    write_png(path, np.zeros((300, 400, 3), np.uint8))
    analysis = analyzer.analyze(path)
    assert analysis.triage == "retake"
    assert analysis.quality.reasons
    assert analysis.quality.reasons[0] in analysis.rule


def test_scale_gives_the_diameter(analyzer, tmp_path):
    image = np.full((400, 400, 3), 215, np.uint8)
    cv2.circle(image, (200, 200), 100, (60, 40, 35), -1)
    path = tmp_path / "x.png"
    write_png(path, image)
    assert analyzer.analyze(path).lesion.diameter_mm is None
    assert abs(analyzer.analyze(path, px_per_mm=20).lesion.diameter_mm - 10) < 0.7


def test_a_lesion_at_the_edge_of_a_reduced_picture_lies_within_it(analyzer):
    """At an eighth, the last row covered a single px of the whole: the box ended 4 px beyond it."""
    pixels = np.full((126, 251, 3), 220, np.uint8)
    pixels[60:, 120:] = 20
    found = analyzer.analyze(Picture(pixels, 1001, 2001)).to_json()["lesion"]
    x, y, width, height = found["box"]
    assert (x + width, y + height) == (2001, 1001)
    assert (np.concatenate(found["polygons"]).max(axis=0) <= (2000, 1000)).all()


def test_the_schema_names_what_there_is():
    for name in re.findall(r"dermedge(?:\.\w+)+", json.dumps(VALIDATOR.schema)):
        assert pkgutil.resolve_name(name)


def test_masks_are_written_at_the_picture_size(tmp_path, tiny_bundle):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed, size in ((1, (384, 512)), (2, (300, 225)), (3, (2400, 3200))):
        image = cv2.resize(draw(seed, label="nv").image, size[::-1])
        write_png(pictures / f"p{seed}.png", image)
    masks = tmp_path / "masks"
    done = _analyze(pictures, "--masks", masks, "--json", tiny_bundle=tiny_bundle)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["image"]).stem for row in rows] == ["p1", "p2", "p3"]
    for row in rows:
        VALIDATOR.validate(row)
        mask = cv2.imread(str(masks / f"{Path(row['image']).stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == tuple(row["size"][::-1])
        assert set(np.unique(mask)) <= {0, 255}
        if row["lesion"]["found"]:
            assert abs((mask > 0).sum() / row["lesion"]["area_px"] - 1) < 0.1


def _good_files() -> dict[str, bytes]:
    image = cv2.cvtColor(draw(7, label="nv").image, cv2.COLOR_RGB2BGR)
    return {
        kind: cv2.imencode(kind, image)[1].tobytes()
        for kind in (".jpg", ".png", ".webp", ".tiff", ".bmp")
    }


@st.composite
def hostile(draw_value):
    """A file that is cut, flipped, swapped, empty, random or claims to be enormous."""
    good = _GOOD
    kind = draw_value(st.sampled_from(sorted(good)))
    content = bytearray(good[kind])
    how = draw_value(st.sampled_from(["cut", "flip", "random", "zeros", "huge", "name", "pad"]))
    if how == "cut":
        content = content[: draw_value(st.integers(0, len(content) - 1))]
    elif how == "flip":
        for _ in range(draw_value(st.integers(1, 40))):
            content[draw_value(st.integers(0, min(len(content), 4000) - 1))] = draw_value(
                st.integers(0, 255)
            )
    elif how == "random":
        content = bytearray(draw_value(st.binary(max_size=2000)))
    elif how == "zeros":
        content = bytearray(draw_value(st.integers(0, 5000)))
    elif how == "huge":
        content = bytearray(_bomb(draw_value(st.integers(20_000, 2**31 - 1))))
    elif how == "name":
        kind = draw_value(st.sampled_from([".jpg", ".png", ".txt", ".heic", ""]))
    else:
        content += draw_value(st.binary(max_size=300))
    return kind, bytes(content)


def _bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims side x side px."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


_GOOD = _good_files()


def test_hostile_files_cost_no_good_one(tmp_path, tiny_bundle):
    """300 hostile files and good ones between them, in one call."""
    folder = tmp_path / "files"
    folder.mkdir()
    made: list[Path] = []

    @settings(
        max_examples=300,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile())
    def make(case):
        kind, content = case
        path = folder / f"h{len(made):04}{kind}"
        path.write_bytes(content)
        made.append(path)

    make()
    good = []
    for index, (kind, content) in enumerate(sorted(_GOOD.items())):
        good.append(folder / f"good{index}{kind}")
        good[-1].write_bytes(content)
    order = [*made[:150], good[0], *made[150:250], *good[1:3], *made[250:], *good[3:]]
    done = _analyze(*order, "--json", tiny_bundle=tiny_bundle)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        VALIDATOR.validate(row)
        rows[row["image"]] = row
    assert len(rows) == len(order) >= 300
    assert all("error" not in rows[str(path)] for path in good)
    failed = [row for row in rows.values() if "error" in row]
    assert len(failed) > 100
    # One line a failed file, and no word of a C library between them.
    assert len(done.stderr.splitlines()) == len(failed)
    assert all(line.startswith("dermedge: ") for line in done.stderr.splitlines())


PEAK = """
import re, sys
from dermedge.cli import main
status = main(sys.argv[1:])
# Not getrusage: a new process starts with the peak of the one that made it.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux only")
def test_bombs_stay_small(tmp_path, tiny_bundle):
    """Files that decode to gigabytes are refused before they are decoded."""
    for index, side in enumerate((12_000, 30_000, 65_535, 1_000_000, 2**31 - 1)):
        (tmp_path / f"bomb{index}.png").write_bytes(_bomb(side))
    command = [sys.executable, "-c", PEAK, "analyze", str(tmp_path), "--json"]
    done = subprocess.run(
        [*command, "--bundle", str(tiny_bundle)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    *rows, peak = done.stdout.splitlines()
    assert len(rows) == 5
    assert all("error" in json.loads(row) for row in rows)
    assert int(peak) < 300_000  # KiB


def test_same_analysis_from_file_bytes_and_picture(analyzer, tmp_path):
    path = tmp_path / "x.png"
    write_png(path, draw(9, label="bkl").image)
    found = [
        analyzer.analyze(source, name="x").to_json()
        for source in (path, path.read_bytes(), read_image(path))
    ]
    for one in found:
        one.pop("timing_ms")
    assert found[0] == found[1] == found[2]


def test_a_network_without_numbers_is_never_low_risk(tiny_bundle, tmp_path, monkeypatch):
    """Half precision overflows to NaN without an error."""
    from dermedge.runtime import SessionError

    analyzer = Analyzer(Bundle.open(tiny_bundle), threads=1)
    labels = len(analyzer.bundle.manifest.labels)

    def overflown(_):
        return {"probabilities": np.full((1, labels), np.nan, np.float32)}

    monkeypatch.setattr(analyzer._classifier._session, "run", overflown)
    path = tmp_path / "x.png"
    write_png(path, draw(1, label="nv").image)
    with pytest.raises(SessionError, match="no finite numbers"):
        analyzer.analyze(path)


def test_a_mask_that_cannot_be_written_costs_no_result(tmp_path, tiny_bundle):
    for name in ("a", "b"):
        write_png(tmp_path / f"{name}.png", draw(1, label="nv").image)
    (tmp_path / "masks" / "a.png").mkdir(parents=True)
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    done = _analyze(*pictures, "--json", "--masks", tmp_path / "masks", tiny_bundle=tiny_bundle)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert (tmp_path / "masks" / "b.png").is_file()
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "masks" / "a.png") in line


def test_a_line_says_what_speaks_against_a_picture_that_is_judged_all_the_same(
    analyzer, tmp_path, tiny_bundle, capsys, monkeypatch
):
    write_png(tmp_path / "a.png", draw(1, label="nv").image)
    good = analyzer.analyze(tmp_path / "a.png")
    advised = replace(good.quality, ok=False, reasons=("cut_off", "hair"), refused=0)
    of_advice = replace(good, quality=advised, triage="low")
    monkeypatch.setattr(Analyzer, "analyze", lambda *_, **__: of_advice)
    assert cli.main(["analyze", str(tmp_path / "a.png"), "--bundle", str(tiny_bundle)]) == 0
    line, *_ = capsys.readouterr().out.splitlines()
    assert line.endswith("; picture quality: cut_off, hair")
    pixels = read_image(tmp_path / "a.png").pixels
    quiet = replace(good, quality=replace(advised, reasons=()), triage="low")
    assert len(explain(pixels, of_advice)) > len(explain(pixels, quiet))


@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_a_mask_shows_no_lesion_where_the_picture_has_none(
    analyzer, tmp_path, tiny_bundle, monkeypatch, limit
):
    write_png(tmp_path / "a.png", draw(1, label="nv").image)
    good = analyzer.analyze(tmp_path / "a.png")
    scored = replace(good, outlier=1.5, outlier_limit=limit)
    monkeypatch.setattr(Analyzer, "analyze", lambda *_, **__: scored)
    call = [str(tmp_path / "a.png"), "--bundle", str(tiny_bundle), "--masks", str(tmp_path / "m")]
    assert cli.main(["analyze", *call]) == 0
    assert read_mask(tmp_path / "m" / "a.png").any() == (limit > 1.5)


def test_names_that_are_not_there_are_wrong_use(tmp_path, tiny_bundle, capsys):
    (tmp_path / "empty.png").touch()
    gone = str(tmp_path / "gone.png")
    for names, status in (([gone], 2), ([gone, str(tmp_path / "empty.png")], 1)):
        assert cli.main(["analyze", *names, "--json", "--bundle", str(tiny_bundle)]) == status
        assert len(capsys.readouterr().out.splitlines()) == len(names)


@pytest.mark.parametrize("folder", ["photos", "photos/why", "photos/a/../b/why"])
def test_drawings_do_not_lie_among_the_pictures(tmp_path, tiny_bundle, capsys, folder):
    """The next run took masks, outlines and explanations for pictures of skin."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    call = ["analyze", str(tmp_path / "photos"), "--bundle", str(tiny_bundle), "--explain"]
    assert cli.main([*call, str(tmp_path / folder)]) == 2
    assert "the next run would take what is drawn for pictures" in capsys.readouterr().err
    assert cli.main([*call, str(tmp_path / "photos" / ".why")]) == 1  # found by no run
    assert cli.main([*call, str(tmp_path / "photos-why")]) == 1  # the picture is empty


def test_masks_never_overwrite_the_pictures(tmp_path, tiny_bundle):
    path = tmp_path / "a.png"
    write_png(path, draw(1, label="nv").image)
    before = path.read_bytes()
    for options in (["--masks", tmp_path], ["--masks", tmp_path / "m", "--outlines", tmp_path]):
        done = _analyze(path, *options, tiny_bundle=tiny_bundle)
        assert done.returncode == 2
        assert "another folder" in done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["--masks", "--outlines"])
def test_drawings_overwrite_none_of_another_picture(tmp_path, tiny_bundle, capsys, option):
    """A second card's IMG_1 took the first one's mask, and a mask that a person drew was lost."""
    for folder, seed in (("first", 1), ("second", 2)):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "x.png", draw(seed, label="nv", size=(64, 80)).image)
    drawn = tmp_path / "drawn" / "x.png"
    words = ["--bundle", str(tiny_bundle), option, str(drawn.parent)]
    for folder, status in (("first", 0), ("first", 0), ("second", 2)):
        assert cli.main(["analyze", str(tmp_path / folder), *words]) == status
    assert "would be overwritten; choose another folder, or delete" in capsys.readouterr().err
    write_png(drawn, np.zeros((64, 80), np.uint8))
    by_hand = drawn.read_bytes()
    assert cli.main(["analyze", str(tmp_path / "first"), *words]) == 2
    assert drawn.read_bytes() == by_hand


def test_pictures_of_a_folder_that_cannot_be_read_are_not_left_out_in_silence(
    tmp_path, tiny_bundle, capsys
):
    (tmp_path / "sub").mkdir()
    for name in ("scan.DCM", "sub/raw.dng", "sub/.hidden.gif", "notes.txt"):
        (tmp_path / name).touch()
    assert cli.main(["analyze", str(tmp_path), "--bundle", str(tiny_bundle)]) == 2
    left_out, none = capsys.readouterr().err.splitlines()
    assert "(.dcm, .dng; files: 2)" in left_out
    assert "no pictures in" in none


def test_cases_whose_pictures_stay_at_home_are_still_named():
    from dermedge.bundle.similar import SimilarCases

    made = SimilarCases.make(np.eye(3, 4), [0, 1, 1], ["a", "b", "c"])
    read = SimilarCases.from_bytes(made.to_bytes(), labels=2)
    assert read.thumbnails == ()
    assert read.picture("b") is None
    (nearest,) = read.nearest(np.array([0, 2, 0, 0.1]), ("nv", "mel"), 1)
    assert (nearest.id, nearest.label) == ("b", "mel")
