"""The app's languages: whole catalogues, plurals, dates and numbers, text from right to left."""

from __future__ import annotations

import re
import shutil
import string
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("babel")
from babel.messages.pofile import read_po

from dermedge import DISCLAIMER, UserError
from dermedge.image.read import ImageError, read_image
from dermedge.triage import RULES
from edge_app.capture.shots import Snapshot
from edge_app.capture.sources import FAULTS
from edge_app.i18n import catalogues, language
from edge_app.i18n.language import LANGUAGES, Message, _, n_
from edge_app.presentation import messages as present
from edge_app.referral import consent
from edge_app.settings import Settings
from edge_app.store.mail import ITS_CODE
from edge_app.store.referrals import UNKNOWN, Elsewhere
from edge_app.store.store import Store, WrongKey
from edge_app.web import build

OTHERS = [name for name in LANGUAGES if name != "en"]
# Message of itself that it is none; nowhere else.
OF_DIAGNOSES = {DISCLAIMER, present.TERMS[0]}
# A second word for a thing that has one, or a word that says something else.
SHUNNED = {
    # The first page promised to say who needs no doctor; a report on paper is no screen.
    "en": ["whether a doctor should", "this screen says"],
    "de": [
        "Überweisung",
        "Fleck",
        "Größenkarte",
        "Größenvergleich",
        "Demonstrationsmodell",
        "Passphrase",
    ],
    "es": ["derivación", "mancha", "tipo de piel", "Tarjeta de tamaño", "rase de contraseña"],
    "ar": ["محذوف من", "عدم التناظر", "نموذج تجريبي", "عبارة المرور"],
}


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
    assert _ids(catalogue) == _ids(template), "run `python -m edge_app.i18n.catalogues`"
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


@pytest.mark.parametrize("name", LANGUAGES)
def test_one_thing_has_one_name(template, name):
    """A page for phones offered a referral as doctors write it, and Arabic called deleted what is
    damaged."""
    if name == "en":
        said = [m.id if isinstance(m.id, str) else " ".join(m.id) for m in template]
    else:
        said = [text for message in _read(name) for text in catalogues.translations(message)]
    assert not [text for text in said for word in SHUNNED.get(name, ()) if word in text]


@pytest.mark.parametrize("name", LANGUAGES)
def test_consent_to_send_is_asked_for_in_every_language(name):
    assert len(consent.text(consent.CURRENT, name).splitlines()) == 5


def test_the_page_for_phones_is_written_from_the_side_of_its_language(monkeypatch):
    monkeypatch.setattr(build, "RIGHT_TO_LEFT", {"ar", "fa"})
    assert b'["ar", "fa"].includes(language) ? "rtl"' in build.page("app.js")


def test_what_other_rooms_say_is_translated_where_it_is_shown():
    language.use("de")
    assert _(DISCLAIMER).startswith("Risikoschätzung für die Forschung, keine Diagnose.")
    assert _("no such message {value}", value=3) == "no such message 3"
    assert _("") == ""


def test_a_fault_is_told_in_the_language_of_the_screen(tmp_path):
    fault = Message(FAULTS["lost"], name=Message("camera {name}", name="0"))
    assert fault == "camera 0 stopped delivering pictures: check its cable."
    seen = Snapshot(fault=fault, fault_code="lost")
    assert present.live(seen).guidance == f"C{fault[1:]}"
    failed = Message(
        "The picture could not be saved: {reason}", reason=language.error_message(_full())
    )
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
    assert present.error_line(caught.value) == "كلمة المرور غير صحيحة."


def _full() -> OSError:
    return OSError(28, "No space left on device")


def test_words_of_a_library_are_not_taken_for_places_of_values():
    error = language.error_message(UserError("no {such} thing"))
    assert _(error) == "no {such} thing"


def test_values_are_translated_too_errors_lines_and_what_systems_say():
    language.use("de")
    inner = UserError("camera {name}", name=Message("folder {name}", name="x"))
    said = language.error_message(UserError("the source failed: {reason}", reason=inner))
    assert _(said) == "die Bildquelle ist ausgefallen: Kamera Ordner x"
    said = Message("the source failed: {reason}", reason=_full())
    assert _(said) == "die Bildquelle ist ausgefallen: der Speicherplatz ist voll"
    said = language.error_message(
        UserError("{path} cannot be read: {reason}", path="a", reason=_full())
    )
    assert _(said).endswith("der Speicherplatz ist voll")
    as_text = Message("the source failed: {reason}", reason="No space left on device")
    assert _(as_text) == _(said).replace("a kann nicht gelesen werden", _failed())
    damaged = Message(UNKNOWN)  # after a preposition, and as the subject
    assert _(Elsewhere(damaged, "").words).startswith("vielleicht schon bei Empfänger mit ")
    assert _(Message(ITS_CODE, receiver=damaged)).startswith("Empfänger mit beschädigtem Namen hat")


def _failed() -> str:
    return "die Bildquelle ist ausgefallen"


@pytest.mark.parametrize("name", LANGUAGES)
def test_names_of_files_are_safe_to_draw(name):
    """Whatever bytes a stick has for a name: no line end, no half character, nothing turned."""
    language.use(name)
    odd = "a\nb\udcff\u202ecod.jpg"
    for value in (odd, Path(odd)):
        said = _("{path} holds no picture that can be read", path=value)
        assert "a\N{REPLACEMENT CHARACTER}b" in said
        said.encode()  # what cannot be is not drawn
        assert not {"\n", "\u202e", "\udcff"} & set(said)
        language.visual(said).encode()


@pytest.mark.parametrize("name", ["/home/x", "/home/سلام/a.jpg", Path("IMG (1).jpg")])
def test_a_path_is_drawn_from_the_left_within_arabic(name):
    language.use("ar")
    said = language.visual(_("Into: {path}", path=name))
    drawn = str(name).replace("سلام", "\ufee1\ufefc\ufeb3")
    assert said.startswith(f"{drawn} :")
    assert not {language.ISOLATE, language.END} & set(said)


# ---------------------------------------------------------------------------- the core's errors


class _Pseudo:
    """A catalogue that knows the template's messages: it leaves of them the values alone."""

    def __init__(self, template):
        self.known = {m.id if isinstance(m.id, str) else m.id[0] for m in template}

    def gettext(self, message):
        if message not in self.known:
            return message
        return "«" + "·".join(f"{{{name}}}" for name in sorted(_places(message))) + "»"

    def ngettext(self, one, _many, _count):
        return self.gettext(one)


@pytest.fixture
def pseudo(template, monkeypatch):
    catalogue = _Pseudo(template)
    monkeypatch.setattr(language, "_catalogue", lambda _name: catalogue)


def test_every_error_of_the_core_can_be_translated():
    """An error whose message has its values filled in already would be English on every screen."""
    bare = [
        f"{path.relative_to(catalogues.DEVICE)}:{line}"
        for path, line, message in catalogues.core_errors()
        if not message
    ]
    assert not bare, "give these errors a message with {name}s, and the values apart"


def test_errors_of_every_kind_are_collected(template):
    ids = _ids(template)
    kinds = {"ImageError", "BundleError", "SessionError", "ScaleError", "StoreError", "WrongPin"}
    assert kinds | {"SourceError", "UserError", "WrongKey"} <= catalogues.error_classes()
    for message in (
        "the size card is bent: lay it flat",  # ScaleError
        "the {network} gave no finite numbers",  # SessionError
        "bundle {path} has no {role}: it is for evaluation alone; export both runs into one "
        "bundle",  # BundleError
        "the file is empty",  # ImageError
        *RULES.values(),
    ):
        assert message in ids


def _broken_pictures(folder: Path) -> dict[str, Path]:
    pixels = np.zeros((32, 32, 3), np.uint8)
    png, jpeg = (cv2.imencode(kind, pixels)[1].tobytes() for kind in (".png", ".jpg"))
    files = {
        "empty": b"",
        "text": b"no picture at all",
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "small.png": cv2.imencode(".png", pixels[:2, :2])[1].tobytes(),
        "bits.png": png.replace(b"IDAT", b"IDAX"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    return {name: folder / name for name in (*files, "folder", "missing")}


def test_a_date_after_a_latin_name_keeps_its_order_within_arabic():
    language.use("ar")
    line = _("from {name}, {day}", name="Dr. Bea", day=language.day("2026-11-29"))
    drawn = language.visual(line).replace("\u200f", "")
    assert drawn.startswith("2026/11/29")  # read from the right: the 29th first
    assert "Dr. Bea" in drawn


def test_a_picture_that_cannot_be_read_is_told_without_a_word_of_english(pseudo, tmp_path):
    names = _broken_pictures(tmp_path)
    for name, path in names.items():
        with pytest.raises(ImageError) as caught:
            read_image(path)
        said = _(Message("The picture could not be read: {reason}", reason=caught.value))
        rest = said.replace(str(path), "").replace(name, "")
        # Names of formats and units are no words of a language.
        rest = re.sub("JPEG|PNG|WebP|TIFF|BMP|HEIC|AVIF|GIF|MB|px", "", rest)
        assert not re.findall("[A-Za-z]{3,}", rest), said


@pytest.mark.parametrize(
    "because",
    [
        {"code": "low", "values": {"malignancy": 0.125, "limit": 0.4}},
        {"code": "see a doctor", "values": {"malignancy": 0.5, "limit": 0.4}},
        {"code": "urgent", "values": {"malignancy": 0.9, "limit": 0.7}},
        {"code": "quality", "values": {"reasons": ["too_dark", "cut_off"]}},
        {"code": "unfamiliar", "values": {"distance": 2.5, "limit": 1.7}},
    ],
)
def test_the_rule_is_told_in_the_language(because):
    language.use("de")
    said = present.rule({"because": because, "rule": "ENGLISH"})
    assert said != "ENGLISH"
    assert said != _filled_in_english(because)
    for value in because["values"].values():
        if isinstance(value, float):
            assert language.number(value, 2) in said


def _filled_in_english(because) -> str:
    language.use("en")
    said = present.rule({"because": because, "rule": ""})
    language.use("de")
    return said


@pytest.mark.parametrize(
    "because", [None, {"code": "other", "values": {}}, {"code": "low", "values": {"limit": 1.0}}]
)
def test_a_rule_that_is_not_known_stays_as_it_was_stored(because):
    language.use("de")
    assert present.rule({"because": because, "rule": "as stored"}) == "as stored"


# ---------------------------------------------------------------------------- numbers of things


NUMBERS = re.compile(r"\{(count|used|total|pictures|seconds|days|months|years|points)\}")
BEFORE_A_NOUN = re.compile(r"\{(\w+)\} ([a-z]{3,}s)\b")
UNITS = {"megapixels", "bytes"}  # signs, or the same in each form
# What no number fills.
TEXTS = {"provider", "network", "receiver", "path", "name", "mark", "source", "part", "kind"}
TEXTS |= {"role", "place"}


def test_numbers_of_things_have_plural_forms(template):
    """A line with `{count} things` has one form for all numbers in no language that ships."""
    once = [m.id for m in template if isinstance(m.id, str)]
    assert not [text for text in once if NUMBERS.search(text)]
    nouns = {text: BEFORE_A_NOUN.findall(text) for text in once}
    for text, found in nouns.items():
        assert not [n for name, n in found if name not in TEXTS and n not in UNITS], text
    several = [m.id for m in template if isinstance(m.id, tuple)]
    assert all("{count}" in one + many for one, many in several)


def test_a_plural_that_was_said_far_away_is_told_by_the_rules_of_the_language():
    forms = {}
    for count in (0, 1, 2, 3, 11, 100):
        said = Message.plural("{count} new picture", "{count} new pictures", count)
        assert said == f"{count} new picture{'s' * (count != 1)}"
        language.use("ar")
        forms[count] = _(Message("{name}: {reason}", name="x", reason=said))
        language.use("en")
    assert len(set(forms.values())) == 6


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


def test_an_arabic_name_within_another_language():
    assert language.visual("Anna: سلام") == f"Anna: {SALAM}"
    assert language.visual("no Arabic") == "no Arabic"
    assert language.visual("größer") == "größer"
    assert language.visual("gr\udcf6sser.png") == "gr\N{REPLACEMENT CHARACTER}sser.png"
    assert language.visual("\udcf6 سلام").encode()  # by bytes that are no text, of an old stick


@pytest.fixture
def without_shaping(monkeypatch):
    """As on Android, where nobody has built python-bidi and uharfbuzz."""
    monkeypatch.setattr(language, "missing", lambda: ("python-bidi", "uharfbuzz"))


def test_without_its_packages_arabic_is_not_offered(without_shaping, monkeypatch):
    assert list(language.offered()) == [name for name in LANGUAGES if name != "ar"]
    monkeypatch.setenv("LC_ALL", "ar_EG.UTF-8")
    assert language.preferred() == "en"
    assert Settings(language="ar").spoken() == "en"


@pytest.mark.parametrize(
    ("environment", "platform", "wanted"),
    [
        ({"LANG": "de_DE.UTF-8"}, "linux", "de"),
        ({"LANG": "de_DE", "LC_ALL": "es_MX.UTF-8"}, "linux", "es"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "xx:de"}, "linux", "de"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "de"}, "linux", "en"),  # as gettext: C has no language
        ({"LANG": "arn_CL"}, "linux", "en"),  # Mapudungun is not Arabic
        ({"LANG": "xx_XX"}, "linux", "en"),
        ({}, "linux", "en"),
        ({}, "win32", "es"),
        ({"LANG": "C.UTF-8"}, "win32", "es"),
        ({"LANG": "de_DE.UTF-8"}, "win32", "de"),
        ({}, "darwin", "de"),
    ],
)
def test_at_first_the_app_speaks_as_the_system_does(environment, platform, wanted, monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"):
        monkeypatch.setenv(name, environment.get(name, ""))
    monkeypatch.setattr(language.sys, "platform", platform)
    spanish = SimpleNamespace(GetUserDefaultUILanguage=lambda: 0x080A)  # of Mexico
    windows = SimpleNamespace(kernel32=spanish)
    monkeypatch.setattr(language.ctypes, "windll", windows, raising=False)
    apple = SimpleNamespace(stdout='(\n    "gsw-CH",\n    "de-CH",\n    en\n)\n')
    monkeypatch.setattr(language.subprocess, "run", lambda words, **_options: apple)
    assert language.preferred() == wanted


def test_no_screen_offers_a_language_that_cannot_be_written_here():
    screens = Path(catalogues.ROOM, "screens")
    found = [path for kind in ("*.kv", "*.py") for path in screens.rglob(kind)]
    offering = [path.name for path in found if "offered()" in path.read_text("utf-8")]
    assert sorted(offering) == ["settings.py", "welcome.kv"]
    assert not [path.name for path in found if "LANGUAGES" in path.read_text("utf-8")]


def test_without_its_packages_no_letter_stands_out_of_order(without_shaping):
    assert language.visual("Anna \u0645\u0631\u064a\u0645, 12") == "Anna ????, 12"
    assert language.visual("plain") == "plain"


def test_with_its_packages_all_languages_are_offered():
    for name in ("bidi", "arabic_reshaper", "uharfbuzz"):
        pytest.importorskip(name)
    assert language.offered() == LANGUAGES
