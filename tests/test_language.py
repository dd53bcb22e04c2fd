"""The app's languages: whole catalogues, plurals, dates and numbers, text from right to left."""

from __future__ import annotations

import re
import shutil
import string

import pytest

pytest.importorskip("babel")
from babel.messages.pofile import read_po

from dermedge import DISCLAIMER, UserError
from edge_app.capture import worker
from edge_app.capture.sources import FAULTS
from edge_app.cases.store import Store, WrongKey
from edge_app.look import catalogues, language
from edge_app.look.language import LANGUAGES, Said, _, n_
from edge_app.words import present

OTHERS = [name for name in LANGUAGES if name != "en"]
# Said of itself that it is none; nowhere else.
OF_DIAGNOSES = {DISCLAIMER, present.TERMS[0]}


@pytest.fixture(autouse=True)
def _english_afterwards():
    yield
    language.use("en")


@pytest.fixture(scope="module")
def template():
    return catalogues.collect()


def _read(name: str):
    with (language.FOLDER / f"{name}.po").open("rb") as file:
        return read_po(file, name)


def _ids(catalogue) -> set:
    return {message.id for message in catalogue if message.id}


@pytest.mark.parametrize("name", OTHERS)
def test_every_message_is_translated_and_none_is_left_over(template, name):
    catalogue = _read(name)
    assert _ids(catalogue) == _ids(template), "run `python -m edge_app.look.catalogues`"
    bare = [m.id for m in catalogue if m.id and not all(catalogues.translations(m))]
    assert not bare
    assert not [message.id for message in catalogue if message.id and message.fuzzy]
    assert not catalogue.obsolete


def test_collecting_again_changes_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "locale"
    shutil.copytree(language.FOLDER, folder)
    monkeypatch.setattr(catalogues, "FOLDER", folder)
    catalogues.main()
    for path in folder.iterdir():
        assert path.read_bytes() == (language.FOLDER / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", OTHERS)
def test_translations_keep_the_places_of_values(name):
    for message in _read(name):
        one, *many = message.id if isinstance(message.id, tuple) else (message.id,)
        for said in catalogues.translations(message) if message.id else ():
            # A form for one or two may say the number in words.
            missing = _places(one) - _places(said)
            assert not missing or (many and missing == {"count"}), (message.id, said)
            assert _places(said) <= _places(one), (message.id, said)


def _places(message: str) -> set[str]:
    return {name for _text, name, _form, _conversion in string.Formatter().parse(message) if name}


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_app_speaks_of_a_diagnosis_only_to_say_that_it_gives_none(template, name):
    catalogue = template if name == "en" else _read(name)
    for message in catalogue:
        said = message.id if name == "en" else message.string
        words = " ".join(said) if isinstance(said, (tuple, list)) else said
        found = re.search("diagno|diagnó|تشخيص", words, re.IGNORECASE)
        assert bool(found) == (message.id in OF_DIAGNOSES), message.id


def test_what_other_rooms_say_is_translated_where_it_is_shown():
    language.use("de")
    assert _(DISCLAIMER).startswith("Risikoschätzung für die Forschung, keine Diagnose.")
    assert _("no such message {value}", value=3) == "no such message 3"
    assert _("") == ""


def test_a_fault_is_told_in_the_language_of_the_screen(tmp_path):
    fault = Said(FAULTS["lost"], name=Said("camera {name}", name="0"))
    assert fault == "camera 0 stopped delivering pictures: check its cable."
    seen = worker.Snapshot(fault=fault, fault_code="lost")
    assert present.live(seen).guidance == f"C{fault[1:]}"
    failed = Said("The picture could not be saved: {reason}", reason=language.words(_full()))
    language.use("de")
    assert present.live(seen).guidance.startswith("Kamera 0 liefert keine Bilder mehr:")
    assert present.live(seen, failed).guidance == (
        "Das Foto konnte nicht gespeichert werden: der Speicherplatz ist voll."
    )
    language.use("ar")
    assert present.live(seen).guidance.startswith("توقفت الكاميرا 0")
    path = tmp_path / "cases.db"
    Store.create(path, "right one").close()
    with pytest.raises(WrongKey) as caught:
        Store.open(path, "wrong one")
    assert present.words(caught.value) == "كلمة المرور غير صحيحة."


def _full() -> OSError:
    return OSError(28, "No space left on device")


def test_words_of_a_library_are_not_taken_for_places_of_values():
    error = language.words(UserError("no {such} thing"))
    assert _(error) == "no {such} thing"


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("en", {0: "0 spots", 1: "1 spot", 2: "2 spots", 1200: "1,200 spots"}),
        ("de", {0: "0 Hautstellen", 1: "1 Hautstelle", 1200: "1.200 Hautstellen"}),
        ("es", {0: "0 lesiones", 1: "1 lesión", 2: "2 lesiones"}),
        (
            "ar",
            {0: "لا توجد بقع", 1: "بقعة واحدة", 2: "بقعتان", 3: "3 بقع", 11: "11 بقعة"},
        ),
    ],
)
def test_plurals(name, forms):
    language.use(name)
    assert {count: n_("{count} spot", "{count} spots", count) for count in forms} == forms


@pytest.mark.parametrize(
    ("name", "day", "number", "percent"),
    [
        ("en", "Mar 5, 2026", "1,234.5", "12%"),
        ("de", "05.03.2026", "1.234,5", "12\u00a0%"),
        ("es", "5 mar 2026", "1.234,5", "12\u00a0%"),
        ("ar", "05\u200f/03\u200f/2026", "1,234.5", "12%"),
    ],
)
def test_dates_and_numbers(name, day, number, percent):
    language.use(name)
    assert language.day("2026-03-05") == day
    assert language.number(1234.5, 1) == number
    assert language.percent(0.123) == percent


# ---------------------------------------------------------------------------- right to left

# Arabic letters as they join: alone, first, in the middle, last.
SALAM = "\ufee1\ufefc\ufeb3"  # 'سلام' from the left: meem alone, lam-alef last, seen first


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        ("سلام", SALAM),
        ("سلام سلام", f"{SALAM} {SALAM}"),
        ("سلام 12", f"12 {SALAM}"),
        ("سلام 1,234.5", f"1,234.5 {SALAM}"),
        ("سلام: 12%", f"%12 :{SALAM}"),
        ("سلام Anna B.", f".Anna B {SALAM}"),
        ("سلام Anna سلام", f"{SALAM} Anna {SALAM}"),
        ("12 mm", "12 mm"),
    ],
)
def test_arabic_is_drawn_in_order(line, drawn):
    language.use("ar")
    assert language.visual(line) == drawn


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        ("(سلام) Anna", f"Anna ({SALAM})"),
        ("سلام (Anna)", f"(Anna) {SALAM}"),
        ("سلام (12) Anna", f"Anna (12) {SALAM}"),
        ("Anna (سلام)", f"({SALAM}) Anna"),
        ("سلام (12", f"12) {SALAM}"),
        ("95) سلام", f"{SALAM} (95"),
        ("Anna [2] (سلام)", f"({SALAM}) Anna [2]"),
    ],
)
def test_brackets_are_drawn_as_brackets(line, drawn):
    language.use("ar")
    assert language.visual(line) == drawn


def test_a_line_without_letters_goes_with_its_paragraph():
    language.use("ar")
    assert language.visual("95%).") == "95%)."
    assert language.visual("95%).", "سلام (95%).") == ".(95%"


def test_a_path_keeps_its_order_within_arabic():
    language.use("ar")
    said = language.visual(_("Into: {path}", path="/home/x"))
    assert said.replace(language.MARK, "").startswith("/home/x :")


def test_an_arabic_name_within_another_language():
    assert language.visual("Anna: سلام") == f"Anna: {SALAM}"
    assert language.visual("no Arabic") == "no Arabic"
    assert language.visual("größer") == "größer"
