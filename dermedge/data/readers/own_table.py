"""A table of one's own, and pictures drawn by dermedge.data.synthetic in the same layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dermedge.data.readers.gathering import (
    PICTURE_ENDING,
    TABLES,
    Gathering,
    Reader,
    folded,
    part_of,
    stated,
    unaccented,
)
from dermedge.data.records import DataError, short
from dermedge.data.synthetic import MARKER
from dermedge.data.tables import Row, Table, columns_of, read_table
from dermedge.taxonomy import GARBLED, interpret

# A spreadsheet writes a long number so, and gives many one name: "1.23457E+15".
_ROUNDED = re.compile(r"[0-9]([.,][0-9]+)?E\+[0-9]+", re.IGNORECASE)
# What it writes in place of a value: "#REF!", "#WERT!", "#¿NOMBRE?".
_ERROR = re.compile(r"#\S*[!?]")
# What rows have in common that a merged cell stands for; of few slips it is one still.
_OF_ONE = {"lesion_id": ("patient_id", "sex", "diagnosis"), "patient_id": ("sex",)}
_SLIPS = 0.1
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_SAMPLED = 500  # different cells by which a column that is not read is known

CSV_COLUMNS = (
    "id",
    "image",
    "mask",
    "diagnosis",
    "lesion_id",
    "patient_id",
    "age",
    "sex",
    "site",
    "skin_type",
    "modality",
    "licence",
    "malignant",
    "split",
)
_MODALITIES = {
    **dict.fromkeys(("dermoscopic", "dermoscopy", "dermatoscopic", "dermatoscopy"), "dermoscopic"),
    **dict.fromkeys(("clinical", "clinical: close-up", "close-up", "photograph"), "clinical"),
}
# What a column of ids may be called: "Patienten-ID", "patient_code", "n.º paciente".
_ID = (
    r"(id|nr|n_?o|num|number|nummer|numero?|numarasi|uid|name|nom(bre|e|or)?"
    r"|identifi(er|ant|cador|cativo)|code?|codigo|codice|key|hash|pseudonym|kurzel|kuerzel|cislo|tunnus|szam|azonosito)"
)
_LESION = (
    r"(lesione?|lesao|lezyon|(lasion|laesion|lesjon)(s|en)?|laesie|leesio|lezij?a|leziune"
    r"|zmian[ay]|elvaltozas)"
)
_MOLE = r"(mole|n(a|ae|e)vus|nevo|tumou?r|muttermal|leberfleck|herd|lunar)"
_PERSON = (
    r"(pat|patients?|patient(en|_?in)|paciente|paziente|subjects?|person|participants?|individual"
    r"|hasta|pacjent(a|ki|ka)?|pacient(a|ky|ka)?|pacijent|pasient(en)?|pasien|potila(s|an)|beteg"
    r"|paciens|proband(en|in)?|teilnehmer(in)?|expediente|prontuario"
    r"|historia_?clinica|cartella_?clinica)"
)
# A person's file, REDCap's or a hospital's; alone it may be what is in it.
_FILE = r"(case|fall|akten?|(\w+_)?record|dossier|protokol|dosya|cartella)"
# Whatever is theirs, but for age, sex and birth.
_PATIENT = "(患者|病人|환자)(?!.*(年[龄齢]|性[别別]|生年|出生|나이|연령|성별|생년))"
_ARABIC_ID = "(رقم|معرف|اسم|كود|رمز|ملف)"
# Other people's names of columns that decide what is learnt, or what is kept apart. They are not
# read, and passing over them would be wrong without a word.
_MEANT = {
    "diagnosis": r"(class(_?(name|label|id))?|label(s|_?name)?|target|dx|diagnos(is|e|tic|tico"
    r"|i|tik|es)(_?\w+)?|category|categorie|klasse|disease|ground_?truth|gt|y|lesion_(type|class)|type"
    r"|(histo)?patholog\w*|histolog\w*|finding|beurteilung|befund)",
    # A code of a lesion may be what it is; "num_lesions" says how many there are.
    "lesion_id": rf"((?!.*cod)({_LESION}(s|s?_?id|_?{_ID}(_?{_ID})?)?|(id|uid|nr|numero)_{_LESION}"
    rf"|{_MOLE}_?(id|uid|nr|number|nummer)|(id|uid|nr)_{_MOLE})"
    rf"|({_ARABIC_ID}_)?(ال)?افة(_{_ARABIC_ID})?)",
    "patient_id": rf"(({_PERSON}|{_FILE})_?{_ID}(_?{_ID})?|{_ID}_({_PERSON}|{_FILE})|{_PERSON}"
    r"|pid|mrn|user_?id|pseudonym|ipp|nhc|pesel|dni|(t_?c_?)?kimlik_?no|uhid|ssn|bsn|cpf|curp"
    r"|cpr(_?n(umme)?r)?|fodselsn(umme)?r|henkilotunnus|hetu|rodne_cislo|oib|cnp|nik|kvnr"
    r"|no_rekam_medis|rut|hc|(mrd|opd|ipd?|cr|reg(istration)?)_?(no|nr|num|number)|mrd|study_id"
    r"|(anon|pseudo|client|kunden)_?id|nachname|surname|last_?name|apellidos?"
    r"|sobrenome|cognome|nazwisko|achternaam|efternamn|etternavn|sukunimi|(ad[iy]?_)?soyad[iy]?"
    r"|カルテ(番号)?|氏名|姓名|(病历|病案|住院|门诊|就诊|登记)号|등록번호|차트번호"
    r"|الرقم_الطبي"
    r"|cedula|personnummer|codice_fiscale|(nhs|hosp|hospital)_?(no|nr|num|number)"
    rf"|({_ARABIC_ID}_)?(ال)?(مريضة?|مرضى)(_{_ARABIC_ID})?|رقم_(ال)?(ملف|سجل)|{_PATIENT}.*)",
    "malignant": r"(malignancy|is_?malignant|benign_?malignant|benign|maligne?|cancer)",
    "split": r"(part|partition|subset|phase|set|fold|split_?name|train_?test)",
    "mask": r"(masks|mask_?(file|path|name)|segmentation(_?\w+)?|seg)",
}


def _gather(g: Gathering) -> None:
    path = _table(g)
    table = _read(g, path)
    # Drawn pictures stay marked as such even when they are read as a table of one's own.
    g.procedural |= (path.parent / MARKER).is_file()
    _refuse_letters_of_sexes(g, table)
    _refuse_merged_cells(g, table)
    seen: dict[Path, Row] = {}
    drawn_for: dict[Path, Row] = {}  # by mask
    patients: dict[str, tuple[str, int]] = {}  # by lesion: whose it is, and the line that says so
    for row in table.rows:
        cells, where = row.cells, table.where(row)
        if not cells["image"]:
            g.errors.append(f"{where}: the column image is empty")
            continue
        image = g.written_path(path.parent, cells["image"], where)
        if image is None:
            continue
        if (first := seen.setdefault(image, row)) is not row:
            g.errors.append(
                f"{where}: {short(cells['image'])} is listed more than once (first: line "
                f"{first.line})"
            )
            continue
        for column in ("id", "lesion_id", "patient_id", "diagnosis"):
            if _ERROR.fullmatch(cells.get(column, "")) and stated(cells[column]):
                g.errors.append(
                    f"{where}: {column} '{short(cells[column])}' is an error of a spreadsheet; "
                    "mend it there, or empty the cell"
                )
            if GARBLED.search(cells.get(column, "")):
                g.errors.append(
                    f"{where}: {column} '{short(cells[column])}' has letters that were lost or "
                    "read in another encoding; export the table again, and open it as UTF-8"
                )
            if _ROUNDED.fullmatch(cells.get(column, "")):
                g.errors.append(
                    f"{where}: {column} '{cells[column]}' was rounded by a spreadsheet; export the "
                    "table again with this column as text"
                )
        lesion = g.identity("lesion", cells.get("lesion_id"))
        patient = g.identity("patient", cells.get("patient_id"))
        if lesion and patient:
            other, line = patients.setdefault(lesion, (patient, row.line))
            if other != patient:
                # Numbers that begin again with each patient would make one lesion of all of these.
                g.errors.append(
                    f"{where}: lesion {short(lesion)} is patient {short(patient)}'s, and patient "
                    f"{short(other)}'s in line {line}; give each lesion an id of its own, such as "
                    f"{short(patient)}/{short(lesion)}"
                )
        drawn = stated(cells.get("mask"))
        mask = g.written_path(path.parent, drawn, where) if drawn else None
        if mask and (first := drawn_for.setdefault(mask, row)) is not row:
            g.errors.append(
                f"{where}: the mask {short(cells['mask'])} is that of line {first.line}, too; a "
                "mask is of one picture"
            )
        part = part_of(cells.get("split", ""))
        if part is None and stated(cells.get("split")):
            # It would count as training.
            g.errors.append(f"{where}: split '{short(cells['split'])}' is not train, val or test")
        kind = stated(cells.get("modality"))
        modality = _MODALITIES.get(kind.lower()) if kind else None
        if kind and modality is None:
            # It would count as either.
            g.errors.append(f"{where}: modality '{short(kind)}' is not dermoscopic or clinical")
        g.add(
            cells.get("id") or PICTURE_ENDING.sub("", Path(cells["image"]).as_posix()),
            image,
            where=where,
            mask=mask,
            diagnosis=cells.get("diagnosis"),
            malignant=cells.get("malignant"),
            lesion=lesion,
            patient=patient,
            age=cells.get("age"),
            sex=cells.get("sex"),
            site=cells.get("site"),
            skin_type=cells.get("skin_type"),
            modality=modality,
            licence=cells.get("licence"),
            official=part,
        )


def _table(g: Gathering) -> Path:
    """The table that is named, or data.csv, or the only one with a column image."""
    if g.table_path is not None:
        return g.table_path
    tables = [
        path for path in g.files if path.suffix.lower() in TABLES and "image" in columns_of(path)
    ]
    if not tables:
        others = [path for path in g.files if path.suffix.lower() in TABLES]
        detail = "no csv with a column 'image'"
        if others:
            columns = short(", ".join(sorted(columns_of(others[0]))), 200)
            detail += f" ({short(others[0].name)} has: {columns})"
        if sheets := [path for path in g.files if path.suffix.lower() in _SPREADSHEETS]:
            detail += f" (save {short(sheets[0].name)} as CSV)"
        raise g.unfit(detail)
    named = [path for path in tables if path.name.lower() == "data.csv"]
    nearest = [path for path in named if len(path.parts) == len(named[0].parts)]
    candidates = nearest or tables
    if len(candidates) > 1:
        names = ", ".join(short(path.relative_to(g.root).as_posix()) for path in candidates[:4])
        raise DataError(
            "{root}: {count} tables have a column 'image' ({names}); name the one to read, as in "
            "{example}",
            code="csv_tables",
            root=short(str(g.root), 200),
            count=len(candidates),
            names=names,
            example=f"csv={short(str(candidates[0]), 200)}",
        )
    return candidates[0]


def _read(g: Gathering, path: Path) -> Table:
    """The table with its columns as in CSV_COLUMNS; "LesionID" is lesion_id."""
    known = {name.replace("_", ""): name for name in CSV_COLUMNS}
    spelt = {name: known.get(name.replace("_", ""), name) for name in columns_of(path)}
    uses = [name for name, column in spelt.items() if column in CSV_COLUMNS]
    table = g.read_table(path, (*CSV_COLUMNS, *uses))
    names = tuple(spelt.get(name, name) for name in table.columns)
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise DataError(
            "{path} line 1: two columns are called '{name}'; remove or rename one",
            code="table_column_twice",
            path=table.path,
            name=twice,
        )
    rows = (
        Row(row.line, {spelt.get(name, name): cell for name, cell in row.cells.items()})
        for row in table.rows
    )
    table = replace(table, columns=names, rows=tuple(rows))
    table.need("image")
    for wanted, pattern in _MEANT.items():
        if wanted in names:
            continue
        meant = [name for name in names if re.fullmatch(pattern, _plain(name))]
        if meant:
            raise DataError(
                "{path}: the column '{name}' is not read, {wanted} is; rename it to {wanted}, or "
                "remove it",
                code="csv_column_meant",
                path=table.path,
                name=short(meant[0]),
                wanted=wanted,
            )
    _judge_by_cells(g, table)
    return table


def _refuse_letters_of_sexes(g: Gathering, table: Table) -> None:
    """An error where a letter may stand for either sex: beside H or V an M may be 'mujer', and
    beside an N alone an F is 'férfi'."""
    letters = {row.cells.get("sex", "").lower() for row in table.rows}
    letter, others = ("m", {"h", "v"}) if "m" in letters else ("f", {"n"})
    if letter in letters and (beside := sorted(others & letters)):
        g.errors.append(
            f"{table.path.name}: sex '{letter.upper()}' beside '{beside[0].upper()}' may be "
            "either; write male and female"
        )


def _refuse_merged_cells(g: Gathering, table: Table) -> None:
    """An error where an id stands in the first row of a person or lesion alone, as a spreadsheet
    saves merged cells: the rows below would be somebody else's. Not where they say that they are:
    there the id is not known."""
    for column, facts in _OF_ONE.items():
        cells = [row.cells.get(column, "") for row in table.rows]
        ids = [cell for cell in cells if cell]
        empty = len(cells) - len(ids)
        if not (cells[0] and len(set(ids)) == len(ids) > 2 and 2 * empty >= len(ids)):
            continue
        above, others = table.rows[0], 0
        for row, cell in zip(table.rows, cells, strict=True):
            if cell:
                above = row
            both = ([stated(r.cells.get(fact)) for r in (row, above)] for fact in facts)
            others += any(a and b and folded(a) != folded(b) for a, b in both)
        if others <= _SLIPS * empty:
            g.errors.append(
                f"{table.path.name}: {column} is empty in {empty} rows, and no {column} stands in "
                "two, as merged cells are saved; fill each row, with 'unknown' where it is not "
                "known"
            )


def _plain(name: str) -> str:
    """'código_de_la_lesión' as 'codigo_lesion', 'pat._nr.' and 'n°_pat' by their 'nr'."""
    words = re.sub(r"[\W_]+", "_", unaccented(name.replace("n°", "nr"))).strip("_")
    return re.sub(r"_(du|de|del|della|der|des|do|da|di|las?|los|l|el)(?=_)", "", words)


def _judge_by_cells(g: Gathering, table: Table) -> None:
    """DataError where a column that is not read is a class, or holds classes or parts; a note where
    its classes are others than those of the column diagnosis."""
    path, names = table.path, table.columns
    unread = [name for name in names if name not in CSV_COLUMNS]
    rows = read_table(path, keep=unread).rows if unread else ()
    for name in unread:
        filled = dict.fromkeys(row.cells[name] for row in rows if stated(row.cells[name]))
        cells = [*filled][:_SAMPLED]
        words = cells if re.search(rf"_{_ID}$|^{_ID}_", _plain(name)) else [name, *cells]
        kinds, parts = {interpret(word).kind for word in words}, set(map(part_of, cells))
        if "diagnosis" not in names and "class" in kinds:
            advice = "holds diagnoses; put them as words into a column diagnosis"
        elif "split" not in names and len(parts) > 1 and None not in parts:
            advice = "holds parts such as train and test; rename it to split"
        else:
            if "class" in kinds:
                _note_other_classes(g, table, name, [row.cells[name] for row in rows])
            continue
        raise DataError(
            "{path}: the column '{name}' is not read, but {advice}, or remove it",
            code="csv_column_meant",
            path=path,
            name=short(name),
            advice=advice,
        )


def _note_other_classes(g: Gathering, table: Table, name: str, cells: Iterable[str]) -> None:
    """A note of rows in which `cells` of a column name another class than the diagnosis: it may be
    that of the eye, and histology says what it was."""
    differ = []
    for row, cell in zip(table.rows, cells, strict=True):
        read, other = interpret(row.cells["diagnosis"]), interpret(cell)
        denied = read.kind == "flag" and read.malignant != other.malignant
        if other.kind == "class" and (denied or read.label not in (None, other.label)):
            differ.append(f"{short(cell, 40)} in line {row.line}")
    if differ:
        g.notes.append(
            f"rows of {short(table.path.name)} whose column '{short(name)}', which is not read, "
            f"names another class than diagnosis: {len(differ)} (such as {differ[0]})"
        )


_LAYOUT = "data.csv with the columns " + ", ".join(CSV_COLUMNS) + " (only image is required)"

CSV = Reader(
    "csv",
    "a table of your own",
    "not stated",
    _LAYOUT,
    _gather,
    strict=True,
    licensed_by_row=True,
)
PROCEDURAL = Reader(
    "procedural",
    "pictures drawn by dermedge.data.synthetic",
    "procedural, Apache-2.0",
    _LAYOUT,
    _gather,
    procedural=True,
    strict=True,
)
