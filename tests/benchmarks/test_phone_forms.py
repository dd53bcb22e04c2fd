"""What a person tells of a real phone: the form, what is refused, where it is shown."""

from __future__ import annotations

import csv
import re
from datetime import date
from pathlib import Path

import pytest
from commands import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.commands.bench import BENCH
from benchmarks.report import compare
from benchmarks.schema import bench_result, phone
from dermedge import UserError

ROOT = Path(__file__).resolve().parents[2]
DEVICES = Path(bench_result.__file__).parents[1] / "results" / "devices"
MEASURED = next(DEVICES.glob("*.json"))
TODAY = date(2026, 12, 24)
LINE = (
    "dermedge 0.2.0, dermoscopy (0123456789ab); OpenCV 4.12.0, onnxruntime-web 1.23.0; "
    "start 4700 ms; last photo 230 ms; live 8.1 a second; Mozilla/5.0 (Linux; Android 10; K)"
)


def filled(**answers: str) -> str:
    """The empty form with a phone, a day, and answers in TOML, by 'section__name'."""
    lines, section = [], ""
    answers = {
        "phone__model": '"Pixel 8"',
        "phone__system": '"Android 16"',
        "phone__browser": '"Chrome 142.0"',
        "first_visit__ready_s": "7.5",
        **answers,
    }
    for line in phone.template().replace("# date = 2026-11-29", "date = 2026-11-29").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        name = line.split(" = ")[0]
        value = answers.get(f"{section}__{name}" if section else name)
        lines.append(line if value is None else f"{name} = {value}" if value else "")
    return "\n".join(lines)


def faults(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return phone.problems(phone.load(path), TODAY)


def test_the_form_in_the_docs_is_the_one_that_is_checked(tmp_path):
    stored = (ROOT / "docs" / "_static" / "phone.toml").read_text(encoding="utf-8")
    assert stored == phone.template()  # python -m benchmarks.schema.phone > docs/_static/phone.toml
    assert faults(tmp_path / "a.toml", stored) == [
        "date: give a day, as 2026-11-29, without quotes",
        "phone.model: missing answer",
        "phone.system: missing answer",
        "phone.browser: missing answer",
        "nothing was tried",
    ]


def test_what_was_not_tried_is_kept_as_such(tmp_path):
    assert faults(tmp_path / "a.toml", filled(versions__line=f'"{LINE}"')) == []
    answers = phone.answers(phone.load(tmp_path / "a.toml"))
    assert answers["first_visit.ready_s"] == 7.5
    assert answers["pdf.whole"] == "not tried"
    assert set(answers) == {"date", *phone.FIELDS}


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({"first_visit__ready_s": "-7.5"}, "first_visit.ready_s: -7.5 is not within"),
        ({"first_visit__ready_s": "7500"}, "first_visit.ready_s: 7500 is not within .* in s"),
        ({"first_visit__ready_s": "nan"}, "first_visit.ready_s: nan is not within"),
        ({"first_visit__ready_s": "true"}, "first_visit.ready_s: give a number"),
        ({"first_visit__ready_s": '"7.5 s"'}, "first_visit.ready_s: give a number"),
        ({"first_visit__ready_s": ""}, "first_visit.ready_s: missing answer; .* is one"),
        ({"phone__free_memory_gib": "3500"}, "phone.free_memory_gib: 3500 .* in GiB"),
        ({"desktop__malignancy_difference": "12"}, "desktop.malignancy_difference: 12"),
        ({"twenty_photos__taken": "19.5"}, "twenty_photos.taken: give a whole number"),
        ({"pdf__whole": '"perhaps"'}, "pdf.whole: give one of yes, no, not tried"),
        ({"pdf__whole": "true"}, "pdf.whole: give one of yes, no, not tried"),
        ({"phone__model": '"not tried"'}, "phone.model: missing answer"),
        ({"phone__model": '"mine, me@example.org"'}, "phone.model: give a product's name"),
        ({"phone__model": '"Pixel 354678901234567"'}, "phone.model: leave out serial"),
        ({"versions__line": '"dermedge 0.2.0"'}, "versions.line: copy the whole line"),
        (
            {"versions__line": f'"{LINE.replace("4700", "999999999")}"'},
            "versions.line: its start, 999999999",
        ),
        ({"date": '"2026-11-29"'}, "date: give a day"),
        ({"date": "2026-11-29T12:00:00"}, "date: give a day"),
        ({"date": "2999-01-01"}, "date: 2999-01-01 is before the first page, or has not come"),
        ({"date": "2020-01-01"}, "date: 2020-01-01 is before"),
        ({"format": '"dermedge bench 4"'}, "format: it is not"),
    ],
)
def test_an_answer_that_cannot_be_is_named_in_one_line(tmp_path, answers, fault):
    (found,) = faults(tmp_path / "a.toml", filled(**answers))[:1]
    assert re.match(fault, found)
    assert "\n" not in found


def test_a_day_that_has_begun_elsewhere_alone_has_come():
    """A form of this morning in Tokyo was refused in Europe, where it was yesterday."""
    form = {"format": phone.PHONE, "date": date(2026, 12, 2)}
    found = {day: phone.problems(form, today=date(2026, 12, day))[0] for day in (1, 30)}
    assert not any("has not come" in fault for fault in found.values())
    assert "has not come" in phone.problems(form, today=date(2026, 11, 30))[0]


def test_unknown_fields_and_sections_are_named(tmp_path):
    text = filled() + '\nowner = "Rosalind"\n[notes]\nname = "Example"\n'
    assert sorted(faults(tmp_path / "a.toml", text)) == [
        "'notes': unknown",
        "cut_off.'owner': unknown",
    ]
    assert "pdf: it is no section; begin it with [pdf]" in faults(
        tmp_path / "a.toml", 'pdf = "yes"\n'
    )


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"{}", b"a = [" * 20_000, b"#" * 10**6])
def test_what_is_no_form_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(UserError, match=r"is not (TOML|UTF-8)") as caught:
        phone.problems(phone.load(tmp_path / "a.toml"))
    assert "\n" not in str(caught.value)


KEYS = st.sampled_from([*phone.QUESTIONS, "date", "format", "line", "model", "taken", "x", "a\nb"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_content_gives_single_lines(content):
    found = phone.problems(content, TODAY)
    assert found
    assert all("\n" not in line and len(line) < 200 for line in found)


@given(st.binary(max_size=60))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_foreign_bytes_are_refused_in_words(tmp_path, content):
    path = tmp_path / "foreign.toml"
    path.write_bytes(content)
    try:
        found = phone.problems(phone.load(path), TODAY)
    except UserError as error:
        found = [str(error).replace(str(path), "")]
    assert found
    assert all("\n" not in line for line in found)


def test_the_command_validates_forms_beside_results(tmp_path, capsys):
    good, bad = tmp_path / "pixel.toml", tmp_path / "iphone.toml"
    good.write_text(filled())
    bad.write_text(filled(phone__free_memory_gib="3500", pdf__whole='"perhaps"'))
    assert call(BENCH, "validate", MEASURED, good) == 0
    assert capsys.readouterr().out == f"valid: {MEASURED}, {good}\n"
    assert call(BENCH, "validate", good, bad) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(bad), "phone.free_memory_gib"],
        [str(bad), "pdf.whole"],
    ]


def test_the_table_of_devices_lists_phones_apart(tmp_path, capsys):
    form = tmp_path / "pixel.toml"
    form.write_text(filled())
    assert call(BENCH, "compare", MEASURED, form, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert compare.PHONES in told
    assert "pixel, " in told
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count(f"<h2>{compare.PHONES}</h2>") == 1
    assert "<td>Pixel 8</td>" in page
    assert "<td>not tried</td>" in page
    assert "pixel" not in (tmp_path / "out" / "compare.csv").read_text()
    with (tmp_path / "out" / "phones.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["reported_by"], row["first_visit.ready_s"]) == ("a person", "7.5")
    assert row["pdf.whole"] == "not tried"


def test_a_form_with_a_fault_and_forms_alone_are_not_compared(tmp_path):
    form = tmp_path / "pixel.toml"
    form.write_text(filled(pdf__whole='"perhaps"'))
    with pytest.raises(UserError, match=r"pdf\.whole"):
        call(BENCH, "compare", MEASURED, form, "--out", tmp_path / "out")
    form.write_text(filled())
    with pytest.raises(UserError, match=r"give a bench\.json"):
        call(BENCH, "compare", form, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_forms_among_the_results_are_valid():
    assert not {
        p: found for p in DEVICES.glob("*.toml") if (found := phone.problems(phone.load(p)))
    }
