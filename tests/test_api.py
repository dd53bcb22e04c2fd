"""The public API: what the README shows in six lines."""

from __future__ import annotations

import copy
import json
import pickle
import pydoc
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from test_readme import ROOT

import dermedge
from benchmarks.accuracy.networks import Networks
from dermedge import Analysis, Analyzer, Bundle, UserError, network, open_bundle
from dermedge.data.records import RowErrors
from dermedge.data.synthetic import draw
from dermedge.image.read import Picture, write_png
from dermedge.lesion.scale import Scale
from dermedge.runtime import ExecutionConfig, open_session
from edge_app.i18n.language import Message
from edge_app.referral.carriers.outcome import Later
from edge_app.tune_process import NothingTimed


def test_a_picture_is_analysed_by_name_of_a_shipped_bundle(tmp_path):
    write_png(tmp_path / "spot.png", draw(1, label="mel", size=(240, 320)).image)
    analysis = Analyzer(open_bundle()).analyze(tmp_path / "spot.png")
    assert isinstance(analysis, Analysis)
    assert 0 <= analysis.malignancy <= 1
    assert analysis.triage in ("retake", "low", "see a doctor", "urgent")
    assert analysis.full_mask().shape == (240, 320)
    assert "not a diagnosis" in analysis.to_json()["disclaimer"]


def test_help_and_completion_list_the_public_api():
    """Loaded when first asked for, they were in neither: `help` showed UserError alone."""
    assert {*dermedge.__all__, "__version__"} <= {*dir(dermedge)}
    text = pydoc.plaintext.document(dermedge)
    assert all(f"class {kind}(" in text for kind in ("Analysis", "Analyzer", "Bundle"))
    assert "open_bundle(bundle: 'str | Path' = 'dermoscopy'" in text
    for kind in (Analysis, Bundle):
        named = [field.name for field in fields(kind) if not field.name.startswith("_")]
        assert [name for name in named if f"\n    {name} : " not in kind.__doc__] == []


def test_a_driver_that_waits_elsewhere_gets_the_same_result(tiny_bundle):
    """What a browser does: it is told what to run, and sends the outputs when they are there."""
    picture = draw(2, size=(120, 160)).image
    analyzer = Analyzer(open_bundle(tiny_bundle))
    source = Picture(picture, *picture.shape[:2])
    steps, asked, result = analyzer.steps(source), 0, None
    inference = next(steps)
    while result is None:
        asked += 1
        try:
            inference = steps.send(inference.session.run(inference.feeds))
        except StopIteration as end:
            result = end.value
    expected = analyzer.analyze(source)
    assert asked == 2
    assert {**result.to_json(), "timing_ms": 0} == {**expected.to_json(), "timing_ms": 0}
    assert np.array_equal(result.lesion.mask, expected.lesion.mask)


def test_what_is_not_understood_of_the_person_is_an_error_with_every_bundle(tiny_bundle):
    """A bundle that judges pictures alone ignored it, another one took it for not known."""
    analyzer = Analyzer(open_bundle(tiny_bundle))
    picture = Picture(draw(2, size=(120, 160)).image, 120, 160)
    with pytest.raises(UserError, match="sex 'F' is not understood: give male or female"):
        analyzer.analyze(picture, metadata={"sex": "F"})
    # Of a data set its reader has counted it.
    networks = Networks(open_bundle(tiny_bundle), threads=1, views=1)
    assert networks.examine(picture, {"age": None, "sex": None, "site": "R\u00fccken"}).triage


def test_what_is_added_to_a_record_is_in_no_other(tiny_bundle):
    """All analyses of an analyzer had one dictionary of versions, and `to_json` gave it away."""
    analyzer = Analyzer(open_bundle(tiny_bundle))
    picture = Picture(draw(2, size=(120, 160)).image, 120, 160)
    analysis = analyzer.analyze(picture, px_per_mm=np.float32(12))
    before = json.dumps(analysis.to_json(), allow_nan=False)
    changed = analysis.to_json()
    for name in ("versions", "probabilities", "scale", "timing_ms"):
        changed[name].clear()
    assert json.dumps(analysis.to_json()) == before
    analysis.versions["clinic"] = "here"
    assert "clinic" not in analyzer.analyze(picture).versions


def test_a_record_holds_plain_values_whatever_was_given(tiny_bundle, monkeypatch):
    """A size of numpy's, as of a table, or a path for a name was no JSON; a card's scale was
    numpy's, too."""
    pixels = draw(2, size=(120, 160)).image
    card = Scale("card", np.diag([0.1, 0.1, 1.0]), np.zeros(pixels.shape[:2], bool))
    monkeypatch.setattr(dermedge.analyzer, "find", lambda *_: card)
    picture = Picture(pixels, *np.array(pixels.shape[:2]))
    analysis = Analyzer(open_bundle(tiny_bundle)).analyze(picture, Path("x.png"), reference="card")
    record = analysis.to_json()
    assert record["scale"]["px_per_mm"] == 10
    assert record["image"] == "x.png"
    waiting = [record]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            waiting += value.values()
        elif type(value) is list:
            waiting += value
        else:
            assert type(value) in (str, int, float, bool, type(None))


def test_a_name_of_nothing_hides_the_files(tiny_bundle, tmp_path):
    """An empty name was as good as none: the path stood in the record."""
    write_png(tmp_path / "smith.png", draw(2, size=(120, 160)).image)
    analyzer = Analyzer(open_bundle(tiny_bundle))
    for name, image in (("", ""), (None, str(tmp_path / "smith.png"))):
        assert analyzer.analyze(tmp_path / "smith.png", name).to_json()["image"] == image


@pytest.mark.parametrize("scale", [0, -3, float("nan"), float("inf"), 1e9])
def test_a_scale_that_no_picture_has_is_an_error(tiny_bundle, scale):
    """`inf` gave a diameter of 0 mm, and a record that is no JSON."""
    with pytest.raises(ValueError, match=r"px_per_mm must be 0\.01 to 100000"):
        Analyzer(open_bundle(tiny_bundle)).analyze(b"", px_per_mm=scale)


def test_a_reference_that_there_is_not_is_an_error(tiny_bundle):
    """The size was unknown, as of a coin that is not in the picture."""
    with pytest.raises(ValueError, match="reference must be one of card, ruler, coin-1-cent"):
        Analyzer(open_bundle(tiny_bundle)).analyze(b"", reference="coin-2euro")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threads": -1}, "threads must be 0 to 1024, got -1"),
        ({"executions": {"classifier": ExecutionConfig(threads=2000)}}, "0 to 1024, got 2000"),
        ({"executions": {"segmentor": ExecutionConfig()}}, "and classifier, got 'segmentor'"),
    ],
)
def test_ways_to_run_that_make_no_sense_are_an_error(tiny_bundle, options, reason):
    """Threads below 0 were taken for the runtime's choice, another role was a KeyError."""
    with pytest.raises(ValueError, match=reason):
        Analyzer(open_bundle(tiny_bundle), **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bundle": "my.dermbundle"}, r"open_bundle\(PATH\) gives, got 'my.dermbundle'"),
        ({"threads": 1.5}, "threads is a whole number, got 1.5"),
        ({"threads": "2"}, "threads is a whole number, got '2'"),
        ({"executions": {"segmenter": "int8"}}, "of segmenter is an ExecutionConfig, got 'int8'"),
    ],
)
def test_what_is_of_another_type_is_named(tiny_bundle, options, reason):
    """A bundle's name was an AttributeError, half a thread one of ONNX Runtime's."""
    with pytest.raises(TypeError, match=reason):
        Analyzer(**{"bundle": open_bundle(tiny_bundle), **options})


def test_a_network_of_both_roles_runs_as_is_said_of_either(make_bundle, monkeypatch):
    """What was said of the classifier alone was ignored."""
    seen = []

    def spying(model, threads, provider, *others):
        seen.append((threads, provider))
        return open_session(model, threads, "cpu", *others)

    monkeypatch.setattr(network, "open_session", spying)
    bundle, how = open_bundle(make_bundle(multitask=True)), ExecutionConfig("fp32", "openvino", 2)
    for roles in (["classifier"], ["segmenter"], ["classifier", "segmenter"]):
        Analyzer(bundle, executions=dict.fromkeys(roles, how))
    assert seen == [(2, "openvino")] * 3
    with pytest.raises(ValueError, match="one network, which runs in one way, got fp32 cpu own"):
        Analyzer(bundle, executions={"classifier": how, "segmenter": ExecutionConfig()})


PIXELS = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize("source", [PIXELS, PIXELS[:0], bytearray(b"\xff\xd8"), 3, None])
def test_pixels_buffers_and_numbers_are_no_path(tiny_bundle, source):
    """An array was printed as the name of a missing file, and a number was read as an open one."""
    with pytest.raises(TypeError, match="expected the path of a picture or the bytes") as refused:
        Analyzer(open_bundle(tiny_bundle)).analyze(source)
    assert "dermedge.image.read.Picture" in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("pixels", "height", "width"),
    [
        (PIXELS / np.float32(255), 40, 60),
        (PIXELS.astype(np.uint16), 40, 60),
        (PIXELS > 0, 40, 60),
        (PIXELS[..., 0], 40, 60),
        (np.dstack([PIXELS, PIXELS[..., :1]]), 40, 60),
        (PIXELS[:0], 0, 60),
        (PIXELS, 60, 40),  # the wrong way round
        (PIXELS, 10, 10),
    ],
)
def test_pixels_that_are_none_of_a_picture_are_refused(pixels, height, width):
    with pytest.raises(ValueError, match=r"^expected uint8|are of no picture"):
        Picture(pixels, height, width)


@pytest.mark.parametrize(
    "error",
    [
        UserError("{a} is no {b}", code="x", a="{c}", b=2),
        RowErrors(("row 2: x", "row 3: y", "row 4: z", "row 5: z")),
        Later(Message("{place} is busy", place="there"), "busy", 3.0, True),
        NothingTimed(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_same_after_a_copy_and_in_another_process(error):
    """Rows that contradict each other became 'r; o; w; and 45 more', others could not be made."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_what_is_not_public_is_no_attribute():
    assert set(dermedge.__all__) == {"Analysis", "Analyzer", "Bundle", "UserError", "open_bundle"}
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = dermedge.analyse


def test_importing_dermedge_alone_loads_no_library():
    libraries = "{'numpy', 'cv2', 'PIL', 'onnxruntime'}"
    code = f"import dermedge, sys; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed():
    assert Path(ROOT, "dermedge", "py.typed").is_file()
