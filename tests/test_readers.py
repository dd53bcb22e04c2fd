"""What readers do with tables and trees of strangers: read right, or refused in words."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from test_datasets import MILK_CODES, isic2018_task3, isic2019, mask, picture, table

from dermedge.cli import main
from dermedge.data import DataError, Split, load, make_split
from dermedge.data.records import RowErrors


def own(root: Path, *lines: str, pictures=("a.png", "b.png", "c.png"), **facts):
    for number, name in enumerate(pictures):
        if not (root / name).exists():
            picture(root / name, number)
    return load("csv", table(root / "data.csv", *lines, **facts))


def refusal(name: str, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(name, path)
    message = str(caught.value)
    assert message.isprintable()
    return message


def refused(root: Path, *lines: str, **facts) -> str:
    with pytest.raises(DataError) as caught:
        own(root, *lines, **facts)
    assert str(caught.value).isprintable()
    return str(caught.value)


def noted(data_set) -> str:
    return " | ".join(data_set.notes)


# --- a table of one's own: what decides is an error with its line ----------------------------


def test_class_numbers_are_refused_line_by_line(tmp_path):
    with pytest.raises(RowErrors) as caught:
        own(tmp_path, "image,diagnosis", "a.png,0", "b.png,1", "c.png,nevus")
    assert [line.split(":")[0] for line in caught.value.lines] == [
        "data.csv line 2",
        "data.csv line 3",
    ]
    assert "write names" in str(caught.value)


def test_data_check_prints_every_row_at_fault(tmp_path, capsys):
    for number in range(5):
        picture(tmp_path / f"{number}.png", number)
    rows = [f"{number}.png,nevus,1" for number in range(5)]
    table(tmp_path / "data.csv", "image,diagnosis,malignant", *rows)
    split = tmp_path / "s.json"
    assert main(["data", "check", f"csv={tmp_path}", "--split", str(split)]) == 2
    printed = capsys.readouterr().err
    assert all(f"data.csv line {number}: " in printed for number in range(2, 7))
    assert not split.exists()


@pytest.mark.parametrize(
    ("diagnosis", "malignant"),
    [
        ("nevus", "1"),
        ("melanoma", "0"),
        ("Melanom", "nein"),
        ("BCC", "benign"),
        ("benign", "yes"),
        ("Merkel cell carcinoma", "false"),
        ("nevus", "bösartig"),
    ],
)
def test_malignant_that_contradicts_the_diagnosis(tmp_path, diagnosis, malignant):
    message = refused(
        tmp_path, "image,diagnosis,malignant", "a.png,nv,", f"b.png,{diagnosis},{malignant}"
    )
    assert "data.csv line 3" in message
    assert diagnosis in message


def test_malignant_in_words(tmp_path):
    words = ("yes", "True", "1.0", "malignant", "ja", "maligno", "oui", "bösartig", "WAHR", "VRAI")
    others = ("no", "FALSE", "0", "benign", "nein", "gutartig", "bénin", "não", "FALSCH", "FAUX")
    names = [f"{number}.png" for number in range(20)]
    rows = [f"{name},{word}" for name, word in zip(names, (*words, *others), strict=True)]
    data_set = own(tmp_path, "image,malignant", *rows, pictures=names)
    assert [record.malignant for record in data_set.records] == [True] * 10 + [False] * 10
    assert "line 2: malignant 'perhaps'" in refused(tmp_path, "image,malignant", "a.png,perhaps")


def test_a_precursor_that_is_stated_as_benign_is_counted(tmp_path):
    data_set = own(tmp_path, "image,diagnosis,malignant", "a.png,actinic keratosis,0")
    assert data_set.records[0].malignant
    assert "actinic keratoses that are stated as benign; they count as malignant: 1" in noted(
        data_set
    )


def test_words_that_name_no_class_are_listed_with_counts(tmp_path):
    data_set = own(
        tmp_path,
        "image,diagnosis",
        *("a.png,eczema", "b.png,eczema", "c.png,pseudomelanoma", "d.png,benign"),
        pictures=("a.png", "b.png", "c.png", "d.png"),
    )
    assert [record.label for record in data_set.records] == ["other", "other", None, None]
    assert "taken as 'other': 2 ('eczema' 2)" in noted(data_set)
    assert "left without a label: 1 ('pseudomelanoma' 1)" in noted(data_set)
    assert "benign or malignant, left without a label: 1 ('benign' 1)" in noted(data_set)


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        *(("label", "diagnosis"), ("dx", "diagnosis"), ("Class", "diagnosis")),
        *(("target", "diagnosis"), ("lesion", "lesion_id"), ("patient", "patient_id")),
        *(("Subject ID", "patient_id"), ("fold", "split"), ("benign_malignant", "malignant")),
        *(("mask_path", "mask"), ("pathology", "diagnosis"), ("MRN", "patient_id")),
        *(("Patienten-ID", "patient_id"), ("PatNr", "patient_id"), ("id_paciente", "patient_id")),
        *(("patient_id_hash", "patient_id"), ("Fallnummer", "patient_id")),
        *(("lesion_key", "lesion_id"), ("Läsions-ID", "lesion_id"), ("id_lesion", "lesion_id")),
        *(("ID lesión", "lesion_id"), ("lésion", "lesion_id"), ("código_paciente", "patient_id")),
        *(("record_id", "patient_id"), ("midas_record_id", "patient_id"), ("IPP", "patient_id")),
        *(("N.º prontuário", "patient_id"), ("Protokol No", "patient_id"), ("NHC", "patient_id")),
        *(("Nr dossier", "patient_id"), ("PESEL", "patient_id"), ("id_pacjenta", "patient_id")),
        *(("Pat.-Nr.", "patient_id"), ("Hasta no", "patient_id"), ("患者编号", "patient_id")),
        *(("رقم المريض", "patient_id"), ("رقم الملف", "patient_id"), ("رقم الآفة", "lesion_id")),
        *(("Patient:in", "patient_id"), ("Probanden-ID", "patient_id"), ("Pat", "patient_id")),
        *(("N° patient", "patient_id"), ("id del paciente", "patient_id"), ("DNI", "patient_id")),
        *(("Lésion n°", "lesion_id"), ("ID der Läsion", "lesion_id")),
        *(
            ("N° de la lésion", "lesion_id"),
            ("ID de la lesión", "lesion_id"),
            ("Identifiant du patient", "patient_id"),
        ),
        *(("NHS number", "patient_id"), ("Hospital No.", "patient_id"), ("UHID", "patient_id")),
        *(("Pasient-ID", "patient_id"), ("fødselsnummer", "patient_id"), ("CPR-nr", "patient_id")),
        *(("potilastunnus", "patient_id"), ("T.C. Kimlik No", "patient_id")),
        *(("číslo pacienta", "patient_id"), ("id pasien", "patient_id")),
        *(("nom du patient", "patient_id"), ("numer pacjenta", "patient_id")),
        *(("Hasta Numarası", "patient_id"), ("Patientenkürzel", "patient_id")),
        *(("病历号", "patient_id"), ("カルテ番号", "patient_id"), ("환자번호", "patient_id")),
        *(("OPD No.", "patient_id"), ("Reg No", "patient_id"), ("study_id", "patient_id")),
        *(("RUT", "patient_id"), ("Apellidos", "patient_id"), ("الرقم الطبي", "patient_id")),
        *(("Mole ID", "lesion_id"), ("Nävus-Nr", "lesion_id"), ("Número de lesión", "lesion_id")),
        *(("Læsions-ID", "lesion_id"), ("lesjonsnummer", "lesion_id"), ("nr zmiany", "lesion_id")),
    ],
)
def test_a_column_that_is_meant_is_never_passed_over(tmp_path, column, wanted):
    message = refused(tmp_path, f"image,{column}", "a.png,nevus")
    assert f"rename it to {wanted}" in message
    # Where the right one is there, the other is only noted.
    data_set = own(tmp_path, f"image,{wanted},{column}", "a.png,,x")
    assert "columns of data.csv that are not read: 1" in noted(data_set)


@pytest.mark.parametrize(
    "column",
    ["num_lesions", "lesions_number", "no_lesion", "lesion_code", "عمر المريض", "اسم الملف"],
)
def test_a_column_that_counts_or_names_lesions_is_no_id_of_them(tmp_path, column):
    data_set = own(tmp_path, f"image,{column}", "a.png,1")
    assert "columns of data.csv that are not read: 1" in noted(data_set)


def test_the_age_of_a_patient_is_no_patient(tmp_path):
    """Renamed as was asked, it made one person of all who are 40."""
    columns = ("환자나이", "환자성별", "患者年龄", "患者性別")
    data_set = own(tmp_path, f"image,{','.join(columns)}", "a.png,40,x,40,x")
    assert "columns of data.csv that are not read: 4" in noted(data_set)


@pytest.mark.parametrize(
    ("columns", "cells"), [("nv,mel", "1,0"), ("what,x", "nevus,7"), ("melanoma,x", "1,2")]
)
def test_columns_that_hold_diagnoses_are_never_passed_over(tmp_path, columns, cells):
    message = refused(tmp_path, f"image,{columns}", f"a.png,{cells}")
    assert "is not read, but holds diagnoses" in message


def test_another_diagnosis_in_a_column_that_is_not_read_is_noted(tmp_path):
    rows = ("a.png,nevus,NV", "b.png,,melanoma", "c.png,{},melanoma")
    for diagnosis in ("nevus", "eczema", "benign"):
        lines = (row.format(diagnosis) for row in rows)
        assert (
            "rows of data.csv whose column 'histology', which is not read, names another class "
            "than diagnosis: 1 (such as melanoma in line 4)"
        ) in noted(own(tmp_path, "image,diagnosis,Histology", *lines))
    agreed = own(tmp_path, "image,diagnosis,Histology", "a.png,malignant,melanoma")
    assert "another class" not in noted(agreed)
    names = [f"{number}.png" for number in range(502)]
    for name in names:
        (tmp_path / name).touch()
    rows = tuple(f"{name},{'melanoma' if name == '501.png' else ''}" for name in names)
    assert "holds diagnoses" in refused(tmp_path, "image,Histo", *rows, pictures=names)


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
def test_merged_cells_of_a_spreadsheet_are_refused(tmp_path, column):
    names = [f"{number}.png" for number in range(6)]
    ids = ("P1", "", "P2", "", "", "P3")

    def rows(*cells: str) -> list[str]:
        return [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]

    message = refused(tmp_path, f"image,{column}", *rows(*ids), pictures=names)
    assert f"{column} is empty in 3 rows" in message
    for good in (
        [cell or "unknown" for cell in ids],
        ["P1", "", "P2", "", "", "P1"],
        ["", "P1", "", "P2", "", "P3"],
        ["P1", "P2", "P3", "P4", "P5", ""],
    ):
        assert len(own(tmp_path, f"image,{column}", *rows(*good), pictures=names).records) == 6


@pytest.mark.parametrize(
    ("columns", "facts", "merged"),
    [
        ("lesion_id,patient_id", ("A", "B", "C", "C", "D", "E"), False),
        ("lesion_id,patient_id", ("A", "a", "C", "C", "", "E"), True),
        ("lesion_id,diagnosis", ("nevus", "melanoma", "nevus", "nevus", "BCC", "nevus"), False),
        ("patient_id,sex", ("male", "male", "female", "unknown", "male", "male"), False),
        ("patient_id,sex", ("male", "male", "female", "unknown", "", "male"), True),
    ],
)
def test_an_id_that_is_missing_of_somebody_else_is_no_merged_cell(tmp_path, columns, facts, merged):
    names = [f"{number}.png" for number in range(6)]
    ids = ("1", "", "2", "", "", "3")
    rows = [",".join(row) for row in zip(names, ids, facts, strict=True)]
    if merged:
        message = refused(tmp_path, f"image,{columns}", *rows, pictures=names)
        assert "as merged cells are saved" in message
    else:
        assert len(own(tmp_path, f"image,{columns}", *rows, pictures=names).records) == 6


def test_one_mask_for_two_pictures_is_refused(tmp_path):
    mask(tmp_path / "m.png")
    message = refused(tmp_path, "image,mask", "a.png,m.png", "b.png,m.png", "c.png,")
    assert "data.csv line 3: the mask m.png is that of line 2, too" in message


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("P01", "p01"), ("P 01", "P\u00a0 01"), ("P01", "\u200fP01"), ("M\u00fc", "Mu\u0308")],
)
def test_one_id_under_two_spellings_is_one(tmp_path, column, one, other):
    data_set = own(tmp_path, f"image,{column}", f"a.png,{one}", f"b.png,{other}", "c.png,P02")
    assert [getattr(record, column) for record in data_set.records] == [one, one, "P02"]


def test_one_picture_under_two_spellings_is_one(tmp_path):
    assert "line 3" in refused(tmp_path, "image,diagnosis", "a.png,nevus", "A.PNG,melanoma")


def test_a_part_that_is_none_is_refused(tmp_path):
    for word in ("reserve", "0", "fold1"):
        message = refused(tmp_path, "image,split", "a.png,train", f"b.png,{word}")
        assert f"line 3: split '{word}'" in message
    message = refused(tmp_path, "image,dataset", "a.png,train", "b.png,test", "c.png,")
    assert "the column 'dataset' is not read, but holds parts" in message
    assert own(tmp_path, "image,dataset", "a.png,train", "b.png,DermNet").records


def test_column_names_in_other_spellings(tmp_path):
    data_set = own(tmp_path, "Image,Lesion ID,PatientID,skin-type", "a.png,0012,1e5,II")
    (record,) = data_set.records
    assert (record.lesion_id, record.patient_id, record.skin_type) == ("0012", "1e5", 2)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (("image,diagnosis,lesion_id", "a.png,nevus, blue,L1"), "line 2: 4 cells"),
        (("image,diagnosis,lesion_id", "a.png,nevus,L1", "b.png,nevus"), "line 3: 2 cells"),
        (("image,diagnosis,diagnosis", "a.png,nevus,melanoma"), "two columns are called"),
        (("image,lesion_id,lesionid", "a.png,L1,L2"), "two columns are called"),
        (("image,diagnosis",), "no rows"),
        (("image,diagnosis", ",nevus"), "line 2: the column image is empty"),
        (('image,diagnosis', 'a.png,"nevus'), "line 2: not a readable table"),
        (("image,diagnosis", "a.png,nevus\0"), "null byte in line 2"),
        (("image,site", f"a.png,{'x' * 200_000}"), "not a readable table"),
        (("image,diagnosis", "a.png,nv", "a.png,nv"), "line 3: a.png is listed more than once"),
        (("id,image", "1,a.png", "1,b.png"), "line 3: 1 is listed more than once"),
        (("id,image", "1,a.png", "2,a.png"), "line 3: a.png is listed more than once"),
        (("name,diagnosis", "a.png,nv"), "no column 'image'; it has: name, diagnosis"),
    ],
)  # fmt: skip
def test_tables_that_shift_or_repeat_are_refused(tmp_path, lines, part):
    assert part in refused(tmp_path, *lines)


def test_lines_are_counted_through_blank_and_long_ones(tmp_path):
    message = refused(
        tmp_path, "image,site,diagnosis", "", 'a.png,"two', 'lines",nevus', ",,", "b.png,back,7"
    )
    assert "data.csv line 6" in message


def test_what_spreadsheets_add_is_harmless(tmp_path):
    data_set = own(
        tmp_path,
        "sep=;",
        "Image;Age;Diagnosis;;",
        "a.png ; 41,5 ; Melanom;;",
        ";;;;",
        "b.png;45 years;nevus;;",
        end="\r\n",
    )
    assert [(r.id, r.age, r.label) for r in data_set.records] == [
        ("a", 41.5, "mel"),
        ("b", 45, "nv"),
    ]
    bar = own(tmp_path, "image|diagnosis", "a.png|nevus, blue")
    assert bar.records[0].label == "nv"


@pytest.mark.parametrize(
    "lines",
    [
        ('"Size\n(mm)";image;SkinType', "3;a.png;III"),
        ('Nr;"Size;\n""mm""";Image;SkinType', "1;3;a.png;III"),
        ('image;"Size\n(mm)";SkinType', "a.png;3;III"),
        ('image,Size "a;b;c;d",SkinType', "a.png,3,III"),
    ],
)
def test_a_header_of_several_lines_is_read_whole(tmp_path, lines):
    assert [record.skin_type for record in own(tmp_path, *lines).records] == [3]


@pytest.mark.parametrize(
    ("encoding", "words", "label"),
    [
        *(("utf-8", "mélanome", "mel"), ("utf-8-sig", "Nävus", "nv"), ("utf-16", "Nävus", "nv")),
        ("latin-1", "mélanome", "mel"),
    ],
)
def test_encodings_that_are_certain(tmp_path, encoding, words, label):
    data_set = own(tmp_path, "image,diagnosis", f"a.png,{words}", encoding=encoding)
    assert (data_set.records[0].label, data_set.records[0].diagnosis) == (label, words)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        *(("utf-32", "nevus"), ("utf-16-le", "nevus"), ("cp1251", "меланома"), ("mac-roman", "é")),
        *(("shift-jis", "黒色腫"), ("cp850", "Nävus"), ("cp1252", "nevus’s")),
        ("cp1254", "olası melanom"),
    ],
)
def test_other_encodings_are_refused_in_words(tmp_path, encoding, words):
    message = refused(tmp_path, "image,diagnosis", f"a.png,{words}", encoding=encoding)
    assert "save it as UTF-8" in message


def test_picture_names_without_ending_with_folders_and_in_other_case(tmp_path):
    for name in ("images/00.jpg", "images/01.PNG", "images/deep/02.jpeg"):
        picture(tmp_path / name)
    names = ("images/00", "images\\01.png", "./images/deep/02")
    data_set = own(tmp_path, "image", *names, pictures=())
    assert [record.image.name for record in data_set.records] == ["00.jpg", "01.PNG", "02.jpeg"]
    picture(tmp_path / "images" / "00.png")
    message = refused(tmp_path, "image", "images/00", pictures=())
    assert "line 2: several files fit 'images/00': 00.jpg, 00.png" in message
    data_set = own(tmp_path, "image", "images/00.jpg", "images/01.tif", pictures=())
    assert data_set.problems == ("data.csv line 3: missing file images/01.tif (there is 01.PNG)",)
    message = refused(tmp_path, "image", "02.jpeg", pictures=())
    assert "data.csv line 2: missing file 02.jpeg (there is images/deep/02.jpeg)" in message


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_letter_with_a_mark_is_one_however_it_is_put_together(tmp_path, written, stored):
    """macOS and Windows write "ü" in two ways."""
    there, name = (unicodedata.normalize(form, "Köln/Müller") for form in (stored, written))
    picture(tmp_path / f"{there}.png")
    data_set = own(tmp_path, "image", f"{name}.PNG", pictures=())
    assert [record.image for record in data_set.records] == [tmp_path / f"{there}.png"]
    apart = tmp_path / "apart"
    picture(apart / "nevus" / f"{there}.jpg")
    mask(apart / "masks" / "nevus" / f"{name}.png")
    assert [bool(record.mask) for record in load("folders", apart).records] == [True]


def test_ages_that_are_no_years_are_named(tmp_path):
    names = [f"{number}.png" for number in range(11)]
    ages = ("45-50", "85+", "6 months", "1980", "-1", "ca. 40", "0", "45 Jahre")
    ages += ("45 J.", "45歳", "45 lat")
    rows = [f"{name},{age}" for name, age in zip(names, ages, strict=True)]
    data_set = own(tmp_path, "image,age", *rows, pictures=names)
    assert [record.age for record in data_set.records] == [None] * 6 + [0, 45, 45, 45, 45]
    assert len(data_set.problems) == 6


def test_an_age_of_0_is_none_in_pictures_of_ham10000(tmp_path):
    pictures = [f"ISIC_00{number}.png" for number in (24305, 24306, 34320, 34321)]
    data_set = own(tmp_path, "image,age", *(f"{p},0.0" for p in pictures), pictures=pictures)
    assert [record.age for record in data_set.records] == [0, None, None, 0]
    assert "ages of 0, as HAM10000 writes one that is not known; not used: 2" in noted(data_set)


def test_skin_types_in_other_spellings(tmp_path):
    types = ("FST3", "Phototype IV", "Fitzpatrick skin type II", "5.0", "FST7", "Hauttyp III")
    types += ("Fototipo 4", "-1")
    rows = [f"{number}.png,{kind}" for number, kind in enumerate(types)]
    pictures = [f"{number}.png" for number in range(len(types))]
    data_set = own(tmp_path, "image,skin_type", *rows, pictures=pictures)
    assert [record.skin_type for record in data_set.records] == [3, 4, 2, 5, None, 3, 4, None]


@pytest.mark.parametrize(
    "words",
    [
        *(("-", "n/a", "unbekannt"), ("k.A.", "Keine Angabe", "k.A."), ("n.d.", "s/d", "#N/A")),
        *(("desconocida", "desconhecida", "sconosciuta"), ("inconnue", "Bilinmiyor", "未知")),
        *(("onbekend", "nieznana", "brak danych"), ("okänd", "belirtilmemiş", "ohne Angabe")),
        # Of MySQL and PostgreSQL, of Oracle, of a pivot table; of Brazil.
        *(
            (r"\N", "(null)", "(blank)"),
            (r"\N", "<NULL>", "(Leer)"),
            ("nicht vorhanden",) * 3,
            ("Ignorado", "NaT", "."),
        ),
        *(("なし", "無", "미상"), ("غير محدد", "अज्ञात", "ns/nc"), ("kA",) * 3),
    ],
)
def test_unknown_groups_are_no_group(tmp_path, words):
    rows = [f"{name},{word}" for name, word in zip(("a.png", "b.png", "c.png"), words, strict=True)]
    data_set = own(tmp_path, "image,patient_id", *rows)
    assert {record.patient_id for record in data_set.records} == {None}
    assert "no lesion or patient is stated" in noted(data_set)


def test_sites_that_name_no_region_are_listed(tmp_path):
    data_set = own(tmp_path, "image,site", "a.png,Rücken", "b.png,Rücken", "c.png,left forearm")
    assert "as good as not stated to a classifier: 2 ('Rücken' 2)" in noted(data_set)


@pytest.mark.parametrize(
    ("sexes", "found"),
    [
        *(("HM", None), ("VM", None), ("nf", None)),
        *(("MF", ["male", "female"]), ("HF", [None, "female"]), ("wm", ["female", "male"])),
        *(("男女", ["male", "female"]), (("Weibl.", "Männl."), ["female", "male"])),
        (("Kadın", "Erkek"), ["female", "male"]),
    ],
)
def test_a_letter_that_may_be_either_sex_is_refused(tmp_path, sexes, found):
    rows = [f"{name},{sex}" for name, sex in zip(("a.png", "b.png"), sexes, strict=True)]
    if found is None:
        assert "may be either; write male and female" in refused(tmp_path, "image,Sex", *rows)
    else:
        data_set = own(tmp_path, "image,Sex", *rows)
        assert [record.sex for record in data_set.records] == found


def test_licences_in_a_table_are_those_of_the_data_set(tmp_path):
    rows = ("a.png,CC BY-NC 4.0", "b.png,", "c.png,CC BY-NC 4.0")
    assert own(tmp_path, "image,licence", *rows).licence == "CC BY-NC 4.0; not stated"
    assert own(tmp_path, "image", "a.png").licence == "not stated"


def test_names_that_are_no_text_are_named(tmp_path):
    picture(tmp_path / "nevus" / "a.png")
    odd = os.fsencode(tmp_path / "nevus") + b"/m\xfcller.png"
    try:
        shutil.copy(tmp_path / "nevus" / "a.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    data_set = load("folders", tmp_path)
    assert [record.id for record in data_set.records] == ["nevus/a"]
    (problem,) = data_set.problems
    assert "m?ller.png: its name is not UTF-8" in problem


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
def test_a_number_is_one_id_however_it_is_written(tmp_path, column):
    cells = ("0012", '"=""0012"""', "12", "12.0", "'0012", "12.00", "112", "12a", "1.2")
    names = [f"{number}.png" for number in range(len(cells))]
    rows = [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]
    data_set = own(tmp_path, f"image,{column}", *rows, pictures=names)
    ids = [getattr(record, column) for record in data_set.records]
    assert ids == ["0012"] * 6 + ["112", "12a", "1.2"]


def test_one_lesion_is_not_two_patients(tmp_path):
    rows = ("a.png,Ann,1", "b.png,Ann,1", "c.png,Bob,1")
    line = refused(tmp_path, "image,patient_id,lesion_id", *rows)
    assert "data.csv line 4: lesion 1 is patient Bob's, and patient Ann's in line 2" in line
    assert "such as Bob/1" in line
    rows = ("a.png,Ann,1", "b.png,,1", "c.png,Bob,unknown")
    assert len(own(tmp_path, "image,patient_id,lesion_id", *rows).records) == 3


@pytest.mark.parametrize("column", ["id", "lesion_id", "Patient-ID", "diagnosis"])
@pytest.mark.parametrize("cell", ["#REF!", "#WERT!", "#¿NOMBRE?"])
def test_errors_of_a_spreadsheet_are_refused(tmp_path, column, cell):
    message = refused(tmp_path, f"image,{column}", f"a.png,{cell}", "b.png,nevus")
    assert f"'{cell}' is an error of a spreadsheet" in message


@pytest.mark.parametrize("column", ["id", "lesion_id", "Patient-ID", "diagnosis"])
@pytest.mark.parametrize("cell", ["KÃ©ratose sÃ©borrhÃ©ique", "M\ufffdller"])
def test_letters_that_were_lost_or_came_apart_are_refused(tmp_path, column, cell):
    message = refused(tmp_path, f"image,{column}", f"a.png,{cell}", "b.png,nevus")
    assert f"'{cell}' has letters that were lost or read in another encoding" in message


@pytest.mark.parametrize("cell", ["#NV", "#N/A", "#N/D", "#YOK"])
def test_what_a_spreadsheet_did_not_find_is_not_known(tmp_path, cell):
    rows = (f"{name}.png,{cell},{cell}" for name in "abc")
    data_set = own(tmp_path, "image,diagnosis,patient_id", *rows)
    assert {(r.label, r.patient_id) for r in data_set.records} == {(None, None)}


@pytest.mark.parametrize("column", ["id", "lesion_id", "Patient-ID"])
def test_ids_that_a_spreadsheet_rounded_are_refused(tmp_path, column):
    message = refused(tmp_path, f"image;{column}", 'a.png;"1,23457E+15"', "b.png;1234567890123456")
    assert "data.csv line 2" in message
    assert "as text" in message
    assert "line 3" not in message


def test_several_tables_need_a_name(tmp_path):
    picture(tmp_path / "a.png")
    table(tmp_path / "train.csv", "image", "a.png")
    table(tmp_path / "test.csv", "image", "a.png")
    message = refusal("csv", tmp_path)
    assert "2 tables have a column 'image'" in message
    assert "csv=" in message
    data_set = load("csv", tmp_path / "train.csv")
    assert "tables that are not read: 1 (test.csv)" in noted(data_set)
    # As a run notes where its pictures are: not of another table in the same folder.
    assert load("csv", data_set.root) == data_set


@pytest.mark.parametrize("name", ["ham10000", "folders"])
def test_a_table_that_its_reader_does_not_read_is_refused(tmp_path, name):
    picture(tmp_path / "nv" / "a.jpg")
    lines = ("lesion_id,image_id,dx", "HAM_0000001,a,nv")
    known = table(tmp_path / "HAM10000_metadata.csv", *lines)
    mended = table(tmp_path / "HAM10000_mended.csv", *lines)
    message = refusal(name, mended)
    assert f"HAM10000_mended.csv: not a table that {name} reads" in message
    assert load("ham10000", known).records


def test_files_that_are_left_out_are_counted(tmp_path):
    picture(tmp_path / "more" / "x.png", 7)
    for name in ("raw.dng", "volume.npy", "Thumbs.db", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    data_set = own(tmp_path, "image,colour", "a.png,red")
    assert "pictures here that are not used: 3 (its top 2, more 1)" in noted(data_set)
    assert "files of a kind that is not read: 2 (.dng 1, .npy 1)" in noted(data_set)
    assert "columns of data.csv that are not read: 1 (colour)" in noted(data_set)


def test_a_path_to_nothing_that_is_read(tmp_path):
    assert "neither a folder nor a table" in refusal("csv", picture(tmp_path / "a.png"))
    (tmp_path / "cases.xlsx").write_bytes(b"PK")
    assert "(save cases.xlsx as CSV)" in refusal("csv", tmp_path)
    table(tmp_path / "cases.csv", "Bild,Läsion", "a.png,1")
    assert "cases.csv has: bild, läsion) (save cases.xlsx as CSV)" in refusal("csv", tmp_path)
    (tmp_path / "pacs" / "nevus").mkdir(parents=True)
    (tmp_path / "pacs" / "nevus" / "1.dcm").write_bytes(b"")
    message = refusal("folders", tmp_path / "pacs")
    assert "not read: 1 (.dcm 1); unpack or convert pictures to JPEG or PNG" in message


# --- folders -----------------------------------------------------------------------------------


def tree(root: Path, *names: str):
    for number, name in enumerate(names):
        picture(root / name, number)
    return load("folders", root)


def labels(data_set) -> dict[str, tuple[str | None, str | None]]:
    return {record.id: (record.label, record.official) for record in data_set.records}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *(("train_dir", "val_dir"), ("Training", "Validation"), ("train-set", "valid_set")),
        *(("images/train", "images/val"), ("one/too/many/train", "one/too/many/val")),
        *(("train_images", "val_images"), ("TRAIN", "VAL"), ("trainset", "valset")),
        *(("archive/split/Train", "archive/split/Valid"), ("Entrenamiento", "Validación")),
        *(("Trainingsdaten", "Validierungsdaten"), ("données d'entraînement", "validation")),
        *(("Træning", "Validering"), ("trainingsdata", "validatieset")),
        *(("Trainingsset", "Validierungsset"), ("treningowe", "walidacyjne")),
        *(("Træningssæt", "Valideringssæt"), ("treningssett", "valideringssett")),
        *(("Trainingsmenge", "dev"), ("train", "internal_val")),
    ],
)
def test_parts_in_the_names_of_folders(tmp_path, train, val):
    data_set = tree(
        tmp_path, *(f"{part}/{name}/{part[-1]}{n}.jpg" for part in (train, val)
                    for name in ("mel", "nv") for n in range(2))
    )  # fmt: skip
    assert Counter(record.label for record in data_set.records) == {"mel": 4, "nv": 4}
    assert Counter(record.official for record in data_set.records) == {"train": 4, "val": 4}


@pytest.mark.parametrize(
    "name",
    ["holdout", "Hold-out set", "eval", "test_external", "Testmenge", "external_validation"],
)
def test_what_is_held_out_is_not_learnt_from(tmp_path, name):
    data_set = tree(tmp_path, "train/mel/1.jpg", "train/nv/2.jpg", f"{name}/mel/3.jpg")
    assert sorted(record.official for record in data_set.records) == ["test", "train", "train"]


def test_parts_below_classes(tmp_path):
    names = ("melanoma/train/1.jpg", "melanoma/testowe/2.jpg", "nevus/train/3.jpg")
    data_set = tree(tmp_path, *names)
    assert set(labels(data_set).values()) == {("mel", "train"), ("mel", "test"), ("nv", "train")}


@pytest.mark.parametrize("form", ["{part}_{name}", "{name}-{part}-images", "{name} {part}set"])
def test_parts_in_the_names_of_classes(tmp_path, form):
    names = ("melanoma", "benign", "eczema")
    data_set = tree(
        tmp_path, *(f"{form.format(part=part, name=name)}/{part}{name}.jpg"
                    for part in ("train", "test") for name in names), "patch test/1.jpg"
    )  # fmt: skip
    found = sorted((r.label or "", r.malignant, r.official) for r in data_set.records)
    assert found == [
        *(("", False, "test"), ("", False, "train"), ("mel", True, "test"), ("mel", True, "train")),
        *(("other", None, "test"), ("other", None, "test"), ("other", None, "train")),
    ]
    assert "no more than benign or malignant" in noted(data_set)
    accented = unicodedata.normalize("NFD", form.format(part="test", name="mélanome"))
    data_set = tree(tmp_path / "macos", f"{accented}/1.jpg", "train_nevus/1.jpg")
    assert set(labels(data_set).values()) == {("mel", "test"), ("nv", "train")}
    alone = tree(tmp_path / "alone", "melanoma/1.jpg", "patch test/1.jpg")
    assert set(labels(alone).values()) == {("mel", None), ("other", None)}


def test_class_folders_with_numbers_and_counts(tmp_path):
    data_set = tree(
        tmp_path,
        "IMG_CLASSES/1. Eczema 1677/1.jpg",
        "IMG_CLASSES/2. Melanoma 15.75k/1.jpg",
        "IMG_CLASSES/4. Basal Cell Carcinoma (BCC) 3323/1.jpg",
        "IMG_CLASSES/5. Melanocytic Nevi (NV) - 7970/1.jpg",
        "IMG_CLASSES/8. Seborrheic Keratoses and other Benign Tumors - 1.8k/1.jpg",
    )
    assert [record.label for record in data_set.records] == ["other", "mel", "bcc", "nv", None]
    assert "left without a label: 1 ('8. Seborrheic" in noted(data_set)


def test_a_collection_named_like_a_class_is_none(tmp_path):
    first = tmp_path / "first"
    data_set = tree(
        first,
        *(f"melanoma_cancer_dataset/{part}/{name}/{part}{name}.jpg"
          for part in ("train", "test") for name in ("benign", "malignant")),
    )  # fmt: skip
    assert Counter((r.label, r.malignant) for r in data_set.records) == {
        (None, False): 2,
        (None, True): 2,
    }
    second = tree(tmp_path / "second", "melanoma/train/nevus/1.jpg", "melanoma/test/mel/2.jpg")
    assert set(labels(second).values()) == {("nv", "train"), ("mel", "test")}
    third = tree(tmp_path / "third", "melanoma/nevus/1.jpg", "melanoma/BCC/2.jpg")
    assert {record.label for record in third.records} == {"nv", "bcc"}
    picture(tmp_path / "fourth" / "melanoma" / "benign" / "1.jpg")
    picture(tmp_path / "fourth" / "melanoma" / "2.jpg")
    assert "names two classes" in refusal("folders", tmp_path / "fourth")


def test_pictures_of_no_part_beside_others_are_counted(tmp_path):
    data_set = tree(tmp_path, "train/mel/1.jpg", "test/mel/2.jpg", "extra/nv/3.jpg")
    assert "they count as training: 1" in noted(data_set)


def test_folders_of_no_class_beside_a_table_are_refused(tmp_path):
    tree(tmp_path, "finalfitz17k/1.jpg", "finalfitz17k/2.jpg")
    table(tmp_path / "fitzpatrick17k.csv", "md5hash,label", "1,melanoma", "2,nevus")
    assert "(the first is finalfitz17k)" in refusal("folders", tmp_path)
    for name in ("benign/1.jpg", "nevus/1.jpg", "finalfitz17k/1_mask.png"):
        assert tree(tmp_path, name).records
        (tmp_path / name).unlink()


def test_folders_of_class_numbers_are_refused(tmp_path):
    picture(tmp_path / "1" / "b.jpg", 1)
    picture(tmp_path / "0" / "a.jpg")
    message = refusal("folders", tmp_path)
    assert "folder '0' is a number that names no class" in message
    picture(tmp_path / "deep" / "train" / "class_2" / "a.jpg")
    assert "class_2" in refusal("folders", tmp_path / "deep")


def test_several_downloads_below_one_folder(tmp_path):
    data_set = tree(
        tmp_path, "first/melanoma/1.jpg", "first/nevus/1.jpg", "second/train/BCC/1.jpg",
        "second/test/BCC/2.jpg", "third/acne/1.jpg",
    )  # fmt: skip
    assert labels(data_set) == {
        "first/melanoma/1": ("mel", None),
        "first/nevus/1": ("nv", None),
        "second/train/BCC/1": ("bcc", "train"),
        "second/test/BCC/2": ("bcc", "test"),
        "third/acne/1": ("other", None),
    }


def test_a_class_below_benign_or_malignant(tmp_path):
    data_set = tree(tmp_path, "benign/nevus/1.jpg", "malignant/melanoma/1.jpg", "benign/x/2.jpg")
    assert [(r.label, r.malignant) for r in data_set.records] == [
        ("nv", False), (None, False), ("mel", True),
    ]  # fmt: skip
    picture(tmp_path / "benign" / "melanoma" / "1.jpg", 9)
    assert "'benign/melanoma' names two classes" in refusal("folders", tmp_path)
    other = tmp_path / "other"
    picture(other / "melanoma" / "nevus" / "1.jpg")
    picture(other / "nevus" / "1.jpg")
    assert "names two classes" in refusal("folders", other)


def test_every_kind_of_picture_counts(tmp_path):
    source = picture(tmp_path / "melanoma" / "0.jpg").read_bytes()
    for ending in ("jfif", "jpe", "avif", "heic", "dib", "JPG", "webp"):
        (tmp_path / "melanoma" / f"x{ending}.{ending}").write_bytes(source)
    picture(tmp_path / "nevus" / "0.jpg", 1)
    (tmp_path / "nevus" / "1.cr2").write_bytes(b"raw")
    (tmp_path / "__MACOSX" / "nevus").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "nevus" / "._0.jpg").write_bytes(b"x")
    picture(tmp_path / "loose.jpg", 3)
    # A thumbnail, and what was deleted.
    for name in ("nevus/@eaDir/0.jpg/THUMB", "#recycle/nevus/2", "$RECYCLE.BIN/S-1-5/$R3"):
        picture(tmp_path / f"{name}.jpg", 1)
    data_set = load("folders", tmp_path)
    assert Counter(record.label for record in data_set.records) == {"mel": 8, "nv": 1}
    assert "pictures that lie in no class folder, left out: 1" in noted(data_set)
    assert ".cr2 1" in noted(data_set)


def test_one_name_with_two_endings_is_two_pictures(tmp_path):
    data_set = tree(tmp_path, "melanoma/1.jpg", "melanoma/1.png", "nevus/1.jpg")
    assert len(data_set.records) == 3


def test_masks_beside_pictures_and_in_a_folder_of_their_own(tmp_path):
    beside = tmp_path / "beside"
    picture(beside / "nevus" / "1.jpg")
    mask(beside / "nevus" / "1_mask.png")
    picture(beside / "mel" / "1.jpg")
    assert [r.mask and r.mask.name for r in load("folders", beside).records] == [None, "1_mask.png"]
    (beside / "nevus" / "1_mask.png").rename(beside / "nevus" / "1_GT.png")
    assert [r.mask and r.mask.name for r in load("folders", beside).records] == [None, "1_GT.png"]
    apart = tmp_path / "apart"
    for name in ("mel", "nv"):
        picture(apart / "images" / name / "1.jpg")
        mask(apart / "masks" / name / "1.png")
    found = load("folders", apart).records
    assert [(r.label, r.mask.parent.name) for r in found] == [("mel", "mel"), ("nv", "nv")]
    (apart / "masks").rename(apart / "Lesion_GroundTruth_v3")
    found = load("folders", apart).records
    assert [(r.label, r.mask.parent.name) for r in found] == [("mel", "mel"), ("nv", "nv")]
    for number, name in enumerate(
        ("lesion_masks", "Masks 2", "SegmentationClass", "mask of pregnancy")
    ):
        picture(apart / name / f"{number}.png")
    loaded = load("folders", apart)
    assert {r.diagnosis for r in loaded.records} == {"mel", "nv", "mask of pregnancy"}
    assert "pictures here that are not used: 3" in noted(loaded)
    mask(apart / "lesion_masks" / "mel" / "1.png")
    loaded = load("folders", apart)
    assert [r.mask and r.mask.parent.name for r in loaded.records] == [None, None, "nv"]
    assert "several masks are here, none of them used: 1" in noted(loaded)


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [("Bilder", "Masken"), ("images", "masques"), ("Imágenes", "máscaras"), ("", "Maschere")],
)
def test_folders_of_masks_in_other_languages(tmp_path, pictures, masks):
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        for name in ("melanoma", "nevo"):
            picture(root / unicodedata.normalize(form, pictures) / name / "1.jpg")
            mask(root / unicodedata.normalize(form, masks) / name / "1.png")
        found = load("folders", root).records
        assert [(r.label, r.mask.parent.name) for r in found] == [
            ("mel", "melanoma"),
            ("nv", "nevo"),
        ]


def test_masks_of_images_are_not_those_of_photos(tmp_path):
    for name in ("images", "photos"):
        picture(tmp_path / name / "nevus/1.jpg")
    mask(tmp_path / "masks/nevus/1.png")
    found = load("folders", tmp_path).records
    assert [bool(record.mask) for record in found] == [True, False]


def test_folders_of_lesions_are_no_classes(tmp_path):
    names = [f"IL_{number:07}/{number}.jpg" for number in range(21)]
    for name in names:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    assert "folders of lesions or people" in refusal("folders", tmp_path)


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (["mel/patient_1/a", "mel/patient_1/b", "nv/Patient_1/c", "nv/pat 2/visit 1/d"], 2),
        (["patient 1/mel/a", "patient 1/nv/b", "patient 2/nv/c"], 2),
        ([f"nv/{100 + number // 2}/{number}" for number in range(40)] + ["mel/100/a"], 20),
        ([f"train/nv/P{number // 2}/{number}" for number in range(40)] + ["test/mel/P3/a"], 20),
        # A year, a batch, a season, a kind of nevus.
        ([f"Fall_2023/nv/{number}" for number in range(9)] + ["Spring_2024/mel/a"], 0),
        ([f"nv/{2015 + number // 4}/{number}" for number in range(20)] + ["mel/2015/a"], 0),
        ([f"nv/{number // 2} nodular/{number}" for number in range(20)] + ["mel/a"], 0),
    ],
)
def test_folders_of_patients_within_or_around_classes(tmp_path, names, people):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    data_set = load("folders", tmp_path)
    assert {record.label for record in data_set.records} == {"mel", "nv"}
    assert len({r.patient_id.lower() for r in data_set.records if r.patient_id}) == people
    assert (f"each taken as a patient: {people} (" in noted(data_set)) == (people > 0)
    assert ("not taken as patients: " in noted(data_set)) == (people == 0)


def test_a_patients_pictures_may_be_called_like_their_folders(tmp_path):
    """One was a lesion of its own then, of nobody, and the person's others somebody's."""
    names = ["mel/patient_1/patient_1", "mel/patient_1/b", "nv/patient_1/patient_1"]
    names += ["mel/patient_2/c/c", "nv/patient_2/d/d"]
    names += [f"nv/{number}/{name}" for number in range(20, 40) for name in (number, f"{number}_b")]
    records = tree(tmp_path, *(f"{name}.png" for name in names)).records
    assert {r.id: r.patient_id for r in records} == {n: n.split("/")[1] for n in names}
    assert {r.lesion_id for r in records} == {*names[2:5], None}


def test_dermofits_codes_hold_in_dermofit_alone(tmp_path):
    dermofit = tree(tmp_path / "d", "ML/A1/A1.png", "PYO/B1/B1.png", "IEC/C1/C1.png")
    assert [r.label for r in dermofit.records] == ["akiec", "nv", "vasc"]
    other = tree(tmp_path / "o", "ML/1.png", "nevus/1.png")
    assert [r.label for r in other.records] == [None, "nv"]


# --- publishers --------------------------------------------------------------------------------


def test_isic2019_with_numbered_columns(tmp_path):
    picture(tmp_path / "ISIC_2019_Training_Input" / "ISIC_0093000.jpg")
    table(
        tmp_path / "ISIC_2019_Training_GroundTruth.csv",
        "image,0,1,2,3,4,5,6,7,8",
        "ISIC_0093000,1,0,0,0,0,0,0,0,0",
    )
    message = refusal("isic2019", tmp_path)
    assert "it has: image, 0, 1, 2" in message
    assert "MEL, NV, BCC" in message


@pytest.mark.parametrize(
    ("cells", "part"),
    [
        ("0.0,1.0,1.0,0.0,0.0,0.0,0.0", "a 1 in more than one class: NV, BCC"),
        ("0.1,0.7,0.2,0.0,0.0,0.0,0.0", "column MEL holds '0.1'"),
        ("0.0,1.0,,0.0,0.0,0.0,0.0", "column BCC holds ''"),
    ],
)
def test_one_hot_rows_that_are_none(tmp_path, cells, part):
    isic2018_task3(tmp_path)
    table(
        tmp_path / "ISIC2018_Task3_Validation_GroundTruth.csv",
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
        f"ISIC_0034321,{cells}",
    )
    message = refusal("isic2018_task3", tmp_path)
    assert part in message
    assert "line 2" in message


def test_a_row_without_any_class_is_counted(tmp_path):
    isic2018_task3(tmp_path)
    name = "ISIC2018_Task3_Validation_GroundTruth.csv"
    header = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    table(tmp_path / name, header, f"ISIC_0034321{',0.0' * 7}")
    data_set = load("isic2018_task3", tmp_path)
    assert data_set.records[-1].label is None
    assert f"rows of {name} with a 1 in no class, left without a label: 1" in noted(data_set)


def test_rows_of_one_picture_that_differ_are_refused(tmp_path):
    isic2018_task3(tmp_path)
    table(
        tmp_path / "copy" / "ISIC2018_Task3_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
        "ISIC_0024306,1.0,0.0,0.0,0.0,0.0,0.0,0.0",
    )
    assert "ISIC_0024306 has another diagnosis" in refusal("isic2018_task3", tmp_path)


def test_isic2018_test_part_as_the_dataverse_gives_it(tmp_path):
    isic2018_task3(tmp_path)
    inner = tmp_path / "ISIC2018_Task3_Test_Images" / "ISIC2018_Task3_Test_Images"
    for name in ("ISIC_0034524", "ISIC_0034525"):
        picture(inner / f"{name}.jpg")
    table(
        tmp_path / "ISIC2018_Task3_Test_GroundTruth.tab",
        "lesion_id\timage_id\tdx\tdx_type\tage\tsex\tlocalization\tdataset",
        '"HAMTEST_1"\t"ISIC_0034524"\t"nv"\t"follow_up"\t40.0\t"female"\t"back"\t"vidir_molemax"',
        '"HAMTEST_1"\t"ISIC_0034525"\t"mel"\t"histo"\t40.0\t"female"\t"back"\t"vidir_molemax"',
    )
    tested = [r for r in load("isic2018_task3", tmp_path).records if r.official == "test"]
    assert [(r.label, r.lesion_id, r.age) for r in tested] == [
        ("nv", "HAMTEST_1", 40),
        ("mel", "HAMTEST_1", 40),
    ]


def test_both_years_below_one_folder(tmp_path):
    isic2018_task3(tmp_path / "2018")
    isic2019(tmp_path / "2019")
    for name in ("isic2018_task3", "isic2019"):
        year = "2018" if "2018" in name else "2019"
        alone = load(name, tmp_path / year)
        assert load(name, tmp_path).records == alone.records
    assert "pictures here that are not used: 4" in noted(load("isic2018_task3", tmp_path))


@pytest.mark.parametrize(
    ("name", "layout", "gone"),
    [
        ("isic2018_task3", isic2018_task3, "ISIC2018_Task3_Training_LesionGroupings.csv"),
        ("isic2019", isic2019, "ISIC_2019_Training_Metadata.csv"),
    ],
)
def test_without_the_lesion_table_a_split_needs_an_option(tmp_path, capsys, name, layout, gone):
    layout(tmp_path)
    (tmp_path / gone).unlink()
    (tmp_path / ("ISIC_2019_Test_GroundTruth.csv")).unlink(missing_ok=True)
    for file in tmp_path.glob("*Validation*/*"):
        file.unlink()
    for number, file in enumerate(sorted(tmp_path.rglob("*.jpg"))):
        picture(file, number)
    data_set = load(name, tmp_path)
    assert gone in data_set.ungrouped
    with pytest.raises(DataError, match="--split-by-picture"):
        make_split(data_set)
    file = tmp_path / "s.json"
    words = ["data", "check", f"{name}={tmp_path}", "--split", str(file)]
    assert main(words) == 2
    assert gone in capsys.readouterr().err
    assert not file.exists()
    assert main([*words, "--split-by-picture"]) == 0
    assert gone in capsys.readouterr().out
    assert "split by picture" in Split.load(file).notes[0]


def test_a_row_missing_in_the_lesion_table_counts_as_well(tmp_path):
    isic2019(tmp_path)
    data_set = load("isic2019", tmp_path)
    assert "lacks 1 of 3 pictures" in data_set.ungrouped, "its metadata lacks ISIC_0000004"


def test_isic2020_of_kaggle_with_both_tables_of_the_publisher(tmp_path):
    picture(tmp_path / "ISIC_2020_Training_JPEG" / "train" / "ISIC_0015719.jpg")
    header = "image_name,patient_id,{}sex,age_approx,anatom_site_general_challenge,diagnosis,"
    header += "benign_malignant,target"
    rest = "female,45.0,upper extremity,{},{},{}"
    first = tmp_path / "ISIC_2020_Training_GroundTruth.csv"
    second = tmp_path / "ISIC_2020_Training_GroundTruth_v2.csv"
    row = rest.format("melanoma", "malignant", 1)
    table(first, header.format(""), f"ISIC_0015719,IP_3075186,{row}")
    table(second, header.format("lesion_id,"), f"ISIC_0015719,IP_3075186,IL_1,{row}")
    (record,) = load("isic2020", tmp_path).records
    assert (record.label, record.lesion_id, record.patient_id) == ("mel", "IL_1", "IP_3075186")
    other = rest.format("nevus", "benign", 0)
    table(second, header.format("lesion_id,"), f"ISIC_0015719,IP_3075186,IL_1,{other}")
    assert "another diagnosis" in refusal("isic2020", tmp_path)
    second.unlink()
    table(first, header.format(""), f"ISIC_0015719,IP_3075186,{rest.format('nevus', 'benign', 1)}")
    assert "target 1 contradicts 'benign'" in refusal("isic2020", tmp_path)


def kaggle_2024(root: Path, *rows: str) -> None:
    for number in range(3):
        picture(root / "train-image" / "image" / f"ISIC_009100{number}.jpg", number)
    header = "isic_id,target,patient_id,age_approx,sex,lesion_id,iddx_full,iddx_1,iddx_2,iddx_3"
    table(root / "train-metadata.csv", header, *rows)


def test_isic2024_as_kaggle_gives_it(tmp_path):
    kaggle_2024(
        tmp_path,
        "ISIC_0091000,1,IP_0,50,male,,Malignant::x::Melanoma,Malignant,x,Melanoma",
        "ISIC_0091001,0,IP_1,51,male,,Benign,Benign,,",
        "ISIC_0091002,0,IP_1,51,male,,Indeterminate::y::Solar or actinic keratosis,Indeterminate,y,"
        "Solar or actinic keratosis",
    )
    data_set = load("isic2024", tmp_path)
    assert [(r.label, r.malignant) for r in data_set.records] == [
        ("mel", True),
        (None, False),
        ("akiec", True),
    ]
    assert data_set.records[1].patient_id == "IP_1"
    message = refusal("isic_cli", tmp_path)
    assert "it has:" in message
    assert "isic2024=" in message
    # The challenge's own table beside it writes the same age in another way.
    more = tmp_path / "ISIC_2024_Training_Input" / "metadata.csv"
    table(more, "isic_id,age_approx", "ISIC_0091000,50.0", "ISIC_0091001,")
    assert load("isic2024", tmp_path).records == data_set.records
    table(more, "isic_id,age_approx", "ISIC_0091000,55.0")
    assert "ISIC_0091000 has another age_approx" in refusal("isic2024", tmp_path)


def test_isic2024_that_contradicts_itself_is_left_out_in_words(tmp_path):
    kaggle_2024(
        tmp_path,
        "ISIC_0091000,0,IP_0,50,male,,Malignant::x::Melanoma,Malignant,x,Melanoma",
        "ISIC_0091001,0,IP_1,51,male,,Benign,Benign,,",
    )
    data_set = load("isic2024", tmp_path)
    assert [record.id for record in data_set.records] == ["ISIC_0091001"]
    assert "stated as benign; left out" in data_set.problems[0]


def test_isic2024_without_metadata_or_unpacked_pictures(tmp_path):
    table(tmp_path / "ISIC_2024_Training_GroundTruth.csv", "ISIC_0015670,0.0", "ISIC_0015845,1.0")
    (tmp_path / "train-image.hdf5").write_bytes(b"x")
    assert "packed in train-image.hdf5" in refusal("isic2024", tmp_path)
    for name in ("ISIC_0015670", "ISIC_0015845"):
        picture(tmp_path / "ISIC_2024_Training_Input" / f"{name}.jpg")
    data_set = load("isic2024", tmp_path)
    assert [r.malignant for r in data_set.records] == [False, True]
    assert "patient_id" in data_set.ungrouped


def test_milk10k(tmp_path):
    from test_datasets import milk10k

    milk10k(tmp_path)
    data_set = load("milk10k", tmp_path)
    facts = {r.lesion_id: (r.diagnosis, r.label, r.malignant) for r in data_set.records}
    assert facts == {
        "IL_1": ("SCCKA", "scc", True),
        "IL_2": ("BEN_OTH", "other", False),
        "IL_3": ("MAL_OTH", "other", True),
        "IL_4": ("INF", "other", False),
        "IL_5": ("NV", "nv", False),
    }
    assert Counter(r.modality for r in data_set.records) == {"dermoscopic": 5, "clinical": 5}
    assert [r.skin_tone for r in data_set.records][::2] == [0, 1, 2, 3, 4]
    assert {r.skin_type for r in data_set.records} == {None}, "its tones are not Fitzpatrick's"
    split = make_split(data_set)
    parts = {name: part for part, ids in split.parts.items() for name in ids}
    pairs = Counter(r.lesion_id for r in data_set.records)
    assert set(pairs.values()) == {2}
    for one in data_set.records:
        for other in data_set.records:
            assert one.lesion_id != other.lesion_id or parts[one.id] == parts[other.id]
    assert "milk10k=" in refusal("isic_cli", tmp_path)
    about = tmp_path / "MILK10k_Training_Metadata.csv"
    text = about.read_text()
    assert ",3," in text
    about.write_text(text.replace(",3,", ",23,"))
    found = load("milk10k", tmp_path)
    assert 23 not in {record.skin_tone for record in found.records}
    assert "skin_tone_class '23' is not 0 to 5" in found.problems[0]
    truth = tmp_path / "MILK10k_Training_GroundTruth.csv"
    table(truth, f"lesion_id,{MILK_CODES.replace('SCCKA', 'SCC')}", f"IL_1{',0.0' * 10},1.0")
    assert "no column SCCKA" in refusal("milk10k", tmp_path)


@pytest.mark.parametrize(
    ("name", "end", "quote"),
    [
        ("HAM10000_metadata", "\t", '"'),
        ("HAM10000_metadata.tab", "\t", ""),
        ("HAM10000_metadata.csv", ",", ""),
    ],
)
def test_ham10000_as_the_dataverse_and_kaggle_give_it(tmp_path, name, end, quote):
    rows = (
        ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"),
        ("HAM_1", "ISIC_0027419", "bkl", "histo", "80.0", "male", "scalp", "vidir_modern"),
        ("HAM_1", "ISIC_0025030", "bkl", "histo", "80.0", "male", "scalp", "vidir_modern"),
    )
    table(tmp_path / name, *(end.join(f"{quote}{cell}{quote}" for cell in row) for row in rows))
    for folder in ("HAM10000_images_part_1", "ham10000_images_part_1"):
        picture(tmp_path / folder / "ISIC_0027419.jpg")
    picture(tmp_path / "HAM10000_images_part_2" / "ISIC_0025030.jpg")
    data_set = load("ham10000", tmp_path)
    assert [(r.label, r.lesion_id) for r in data_set.records] == [("bkl", "HAM_1")] * 2
    assert "pictures here that are not used: 1" in noted(data_set), "Kaggle's second copy"


@pytest.mark.parametrize("blank", ["", ",,,,,,"])
@pytest.mark.parametrize(("indexes", "counted"), [((0, 2, 3), True), ((0, 1, 2), False)])
def test_derm7pt_indexes_where_meta_has_empty_rows(tmp_path, blank, indexes, counted):
    rows = [f"{n},nevus,back,male,c{n}.jpg,d{n}.jpg,{n}" for n in (1, 2, 3)]
    header = "case_num,diagnosis,location,sex,clinic,derm,case_id"
    table(tmp_path / "meta" / "meta.csv", header, rows[0], blank, *rows[1:])
    for name, index in zip(("train", "valid", "test"), indexes, strict=True):
        table(tmp_path / "meta" / f"{name}_indexes.csv", "indexes", str(index))
    for number in (1, 2, 3):
        for view in "cd":
            picture(tmp_path / "images" / f"{view}{number}.jpg", number)
    parts = {r.lesion_id: r.official for r in load("derm7pt", tmp_path).records}
    assert parts == {"1": "train", "2": "val", "3": "test"}, counted
    table(tmp_path / "meta" / "test_indexes.csv", "indexes", "7")
    assert "whether the index files count them" in refusal("derm7pt", tmp_path)


def test_pad_ufes_20_as_its_publisher_gives_it(tmp_path):
    table(
        tmp_path / "metadata.csv",
        "patient_id,lesion_id,smoke,age,fitspatrick,region,gender,diagnostic,img_id,biopsed",
        "PAT_1516,1765,,8,,ARM,,NEV,PAT_1516_1765_530.png,False",
        "PAT_46,881,False,55,3.0,NECK,FEMALE,BCC,PAT_46_881_939.png,True",
    )
    inner = tmp_path / "images" / "imgs_part_1" / "imgs_part_1"
    for name in ("PAT_1516_1765_530", "PAT_46_881_939"):
        picture(inner / f"{name}.png")
    data_set = load("pad_ufes_20", tmp_path)
    assert [(r.label, r.patient_id) for r in data_set.records] == [
        ("nv", "PAT_1516"),
        ("bcc", "PAT_46"),
    ]
    assert "columns of metadata.csv that are not read: 2 (smoke, biopsed)" in noted(data_set)


def test_ph2_rows_out_of_place_are_refused(tmp_path):
    picture(tmp_path / "IMD003.bmp")
    table(tmp_path / "PH2_dataset.txt", "|| Name ||", "|| IMD003 || 0 ||", "IMD004 || x || y ||")
    assert "line 2" not in refusal("ph2", tmp_path)


def test_train_prints_what_is_not_used(tmp_path, capsys):
    own(tmp_path, "image,diagnosis,colour", "a.png,eczema,red", "b.png,acne,red", "c.png,acne,red")
    words = ["train", "classifier", "--recipe", "classifier", "--data", f"csv={tmp_path}"]
    assert main([*words, "--out", str(tmp_path / "run"), "--set", "preprocessing.size=32"]) == 2
    told = capsys.readouterr().err
    assert "'eczema' 1" in told
    assert "(colour)" in told
