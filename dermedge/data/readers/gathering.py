"""What all readers share: the files below a path, and how cells become records."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dermedge.data.fingerprint import isic_number
from dermedge.data.records import DataError, DataSet, Record, RowErrors, id_key, printable, short
from dermedge.data.tables import Table, read_table, read_text
from dermedge.files import walk
from dermedge.image.read import EXTENSIONS
from dermedge.metadata import region
from dermedge.taxonomy import Diagnosis, interpret

Known = TypeVar("Known")

PICTURES = EXTENSIONS
PICTURE_ENDING = re.compile(
    "(" + "|".join(re.escape(ending) for ending in sorted(EXTENSIONS)) + r"|\.dcm)$", re.IGNORECASE
)
TABLES = frozenset({".csv", ".tsv", ".tab"})
MASK_FOLDER = re.compile(
    # "student_masks", "masks_2" and "Lesion_GroundTruth_v3", but no "mask of pregnancy".
    r"((.*[ _-])?(masks|segmentations|ground[ _-]?truths?|gt)([ _-].*)?"
    r"|(.*[ _-])?(mask|segmentation)|annotations?|labels?"
    # macOS stores the accent as a letter of its own.
    r"|(.*[ _-])?(masken?|masques|m(a|á|a\u0301)scaras?|mascher[ae]|segmentierung(en)?)"
    # As Pascal VOC, CVAT and LabelMe export them, in colours.
    r"|segmentation(class|object)\w*)",
    re.IGNORECASE,
)
# Neither pictures nor tables, and nobody expects them to be.
_ASIDE = frozenset(
    {
        *(".txt", ".md", ".rst", ".json", ".toml", ".yaml", ".yml", ".xml", ".html", ".log"),
        *(".db", ".ini", ".py", ".ipynb", ".sh", ".bat", ".pdf", ".docx", ".license", ".lnk"),
    }
)
_UNSTATED = frozenset(
    {
        *("", "unknown", "na", "n/a", "n.a", "#n/a", "nan", "nat", "none", "null", "\\n", "unk"),
        *("-", "--", "?", "not stated", "not specified", "unbekannt", "inconnu", "inconnue"),
        # Of a lesion as of a patient: such words have a gender.
        *("desconocido", "desconocida", "desconhecido", "desconhecida", "sconosciuto"),
        *("sconosciuta", "missing", "#null!", "undefined", "bilinmiyor", "غير معروف", "未知"),
        *("不详", "不明", "無", "无", "なし", "未記入", "미상", "없음", "غير محدد", "अज्ञात"),
        # What spreadsheets write where a lookup found nothing: in German, Spanish, Dutch, Turkish.
        *("#nv", "#n/d", "#n/b", "#yok"),
        *("not known", "not available", "not applicable", "not recorded", "unspecified"),
        *("no data", "n/d", "n.d", "nd", "s/d", "sin datos", "non renseigné", "k.a", "k. a"),
        *("keine angabe", "keine angaben", "ohne angabe", "nicht bekannt", "nicht angegeben"),
        *("non précisé", "no consta", "sin especificar", "não informado", "não especificado"),
        *("ignorado", "ignorada", "não consta", "sem informação", "sin información", "ns/nc"),
        *("non renseignée", "non connu", "non connue", "nicht vorhanden"),
        *("non noto", "non nota", "non specificato", "belirtilmemiş", "yok"),
        # Dutch, Nordic, Polish.
        *("onbekend", "niet bekend", "geen gegevens", "ukendt", "ukjent", "okänd", "okänt"),
        *("nieznany", "nieznana", "nieznane", "brak danych", "brak"),
        # Of an empty cell, as pivot tables have it.
        *("blank", "empty", "leer", "vide", "vacío", "vazio", "vuoto", "leeg", "boş"),
    }
)
_SEXES = {
    **dict.fromkeys(
        ("male", "m", "man", "männlich", "mann", "homme", "masculin", "hombre", "masculino")
        + ("uomo", "maschio", "maschile", "homem", "mannelijk", "mand", "mężczyzna", "erkek")
        + ("männl.", "masc", "masc.", "男", "男性", "남", "남성", "남자", "ذكر"),
        "male",
    ),
    **dict.fromkeys(
        ("female", "f", "woman", "weiblich", "w", "frau", "femme", "féminin", "mujer", "femenino")
        + ("donna", "femmina", "femminile", "mulher", "feminino", "vrouw", "vrouwelijk", "kvinde")
        + ("kvinna", "kvinne", "kobieta", "kadın", "kadin", "weibl.", "fem", "fem.")
        + ("女", "女性", "여", "여성", "여자", "أنثى", "انثى"),
        "female",
    ),
}
_SKIN_TYPES = {
    **{roman: number for number, roman in enumerate(("i", "ii", "iii", "iv", "v", "vi"), 1)},
    **{str(number): number for number in range(1, 7)},
}
_AGE = re.compile(
    r"([0-9]{1,3}(?:[.,][0-9]+)?)\s*(?:y|yo|y/o|yrs?\.?|years?(?: old)?|j\.?|jahre?|ans?|años?"
    r"|anos?|anni|anno|jaar|år|lat|yaş|歳|才|岁|세|سنة)?",
    re.IGNORECASE,
)
# HAM10000's pictures in the ISIC archive. An age of 0 is theirs where none is known: MILK10k, which
# has other pictures of ten of these lesions, states none of nine, and 75 of the other.
_HAM10000 = range(24306, 34321)
_FLAGS = {
    **dict.fromkeys(
        ("true", "1", "1.0", "1,0", "yes", "y", "t", "ja", "oui", "si", "sì", "sí")
        # As spreadsheets write "true" in other languages, into a CSV, too.
        + ("wahr", "vrai", "verdadero", "vero", "verdadeiro", "waar", "prawda", "doğru"),
        True,
    ),
    **dict.fromkeys(
        ("false", "0", "0.0", "0,0", "no", "n", "f", "nein", "non", "não", "nao")
        + ("falsch", "faux", "falso", "onwaar", "fałsz", "yanlış"),
        False,
    ),
    "sim": True,
}
# In English, then in German, French, Spanish, Italian, Portuguese, Turkish, Nordic languages, Dutch
# and Polish, without accents.
_PARTS = {
    **dict.fromkeys(
        ("train", "training", "trn", "entrainement", "apprentissage", "entrenamiento")
        + ("addestramento", "treino", "treinamento", "egitim", "traening", "trening", "traning")
        + ("treningowy", "treningowe"),
        "train",
    ),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validierung", "validacion", "validazione")
        + ("validacao", "dogrulama", "validering", "validatie", "walidacja", "walidacyjny")
        + ("walidacyjne", "dev"),
        "val",
    ),
    **dict.fromkeys(
        ("test", "testing", "tst", "prueba", "pruebas", "teste", "testowy", "testowe")
        + ("holdout", "eval", "evaluation"),
        "test",
    ),
}
_PART_FILLERS = frozenset(
    {
        *("dir", "set", "sets", "data", "dataset", "images", "image", "imgs", "img", "pictures"),
        *("folder", "split", "part", "input", "jpeg", "jpg", "png", "photos", "files", "cls"),
        *("daten", "bilder", "donnees", "jeu", "datos", "imagenes", "dati", "dados", "imagens"),
        *("immagini", "de", "d", "di", "internal", "external", "final"),
    }
)
MOST_NAMED = 8  # words, columns or folders in one line


@dataclass(frozen=True)
class Reader:
    """How to read one data set. `layout` says in words what is looked for under the path.

    `strict`: a table that its user wrote, in which a row that contradicts itself is an error; a
    publisher's is left out with a line. `licensed_by_row`: rows state licences, which together are
    that of the data set; `licence` is that of the others.
    """

    name: str
    title: str
    licence: str
    layout: str
    gather: Callable[[Gathering], None]
    procedural: bool = False
    strict: bool = False
    licensed_by_row: bool = False

    def read(self, path: Path) -> DataSet:
        """Read the data set under `path`; see `dermedge.data.load`."""
        gathering = Gathering(self, path)
        self.gather(gathering)
        return gathering.finish()


class Gathering:
    """The files under one path, and the records, problems and notes found so far."""

    def __init__(self, reader: Reader, path: Path):
        self.reader = reader
        self.table_path: Path | None = None
        path = Path(os.path.abspath(path))
        if os.path.isfile(path):
            if path.suffix.lower() not in (*TABLES, ".txt"):
                raise DataError(
                    "{path}: neither a folder nor a table (.csv, .tsv); save a spreadsheet as CSV",
                    code="data_no_folder",
                    path=short(str(path), 300),
                )
            path, self.table_path = path.parent, path
        if not os.path.isdir(path):
            raise DataError(
                "{path}: no such folder (reading it as {reader})",
                code="data_no_folder",
                path=short(str(path), 300),
                reader=reader.name,
            )
        self.root = path
        self.problems: list[str] = []
        self.files = sorted(
            _walk(path, self.problems), key=lambda file: (len(file.parts), str(file))
        )
        self.images = [file for file in self.files if file.suffix.lower() in PICTURES]
        self.records: dict[str, Record] = {}
        self.notes: list[str] = []
        self.errors: list[str] = []
        self.same: list[tuple[str, str]] = []
        self.ungrouped = ""
        self.procedural = reader.procedural
        self._where: dict[str, str] = {}
        self._read: set[Path] = set()
        self._words: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("other", "unclear", "flag", "site")
        }
        self._counts: Counter[str] = Counter()
        self._ids: dict[tuple[str, str], str] = {}
        # In a folder that is one of masks by its name.
        self.masks = {
            file
            for file in self.images
            if any(map(MASK_FOLDER.fullmatch, file.relative_to(path).parts[:-1]))
        }
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for file in self.images:
            self._by_stem[folded(file.stem)].append(file)

    # --- finding ---------------------------------------------------------------------------

    def unfit(self, detail: str) -> DataError:
        """The error that says why the folder is not of this reader's layout, for raising."""
        if not self.images and (others := self._unread_kinds()):
            detail += f" ({others}; unpack or convert pictures to JPEG or PNG)"
        return DataError(
            "{root}: not the layout of {reader}: {detail}; looked for {layout}",
            code="data_layout",
            root=short(str(self.root), 300),
            reader=self.reader.name,
            detail=detail,
            layout=self.reader.layout,
        )

    def tables(self, pattern: str) -> list[Path]:
        """Files whose name matches `pattern` (any case), the ones nearest to the root first."""
        match = re.compile(pattern, re.IGNORECASE).fullmatch
        return [file for file in self.files if match(file.name)]

    def table(self, pattern: str, what: str) -> Path:
        """The file nearest to the root that `tables` finds; DataError where there is none."""
        tables = self.tables(pattern)
        if not tables:
            raise self.unfit(f"no {what}")
        return tables[0]

    def read_table(
        self,
        path: Path,
        uses: Collection[str],
        header: tuple[str, ...] = (),
        first_cell: str = "",
    ) -> Table:
        """Read a table of which only the columns in `uses` are kept; the others are noted."""
        table = read_table(path, header, first_cell, uses)
        self._read.add(path)
        unread = [name or "(without a name)" for name in table.columns if name not in uses]
        if unread:
            self.notes.append(
                f"columns of {short(path.name)} that are not read: {len(unread)} ({_list(unread)})"
            )
        return table

    def read_text(self, path: Path) -> str:
        """The text of a list that is no table."""
        self._read.add(path)
        return read_text(path)

    def pictures(self, folder: str, beside: Iterable[str] = ()) -> dict[str, Path]:
        """Stem to picture, for pictures anywhere below a folder whose name matches `folder`.

        Those in a folder within it that matches one of `beside` alone are not its own: the data
        set may lie in a folder called 'test' or 'melanoma'.
        """
        match = re.compile(folder, re.IGNORECASE).fullmatch
        known = re.compile("|".join(f"({name})" for name in (folder, *beside)), re.IGNORECASE)
        by_stem: dict[str, Path] = {}
        for file in self.images:
            inner = file.relative_to(self.root).parts[:-1]
            named = [name for name in (self.root.name, *inner) if known.fullmatch(name)]
            if named and match(named[-1]):
                by_stem.setdefault(file.stem, file)
        return by_stem

    def picture(self, stem: str, near: Path | None = None) -> Path | None:
        """The picture with this stem (any case), below the folder `near` if it lies there.

        A mask may have its picture's name: one in a folder of masks is no picture, unless all are.
        """
        masks = self.masks if len(self.masks) < len(self.images) else set()
        return next((file for file in self._named(stem, near) if file not in masks), None)

    def mask(self, stem: str, near: Path | None = None) -> Path | None:
        """The mask with this stem, as `picture`; in a folder of masks or not."""
        return next(iter(self._named(stem, near)), None)

    def _named(self, stem: str, near: Path | None) -> list[Path]:
        candidates = self._by_stem.get(folded(stem), [])
        if near is not None:
            candidates = sorted(candidates, key=lambda file: not file.is_relative_to(near))
        return candidates

    def written_path(self, base: Path, text: str, where: str) -> Path | None:
        """A path as a table states it, relative to `base`; never outside of the root.

        The ending may be missing, and the case may differ. Several files that fit are an error.
        """
        text = text.replace("\\", "/")
        path = Path(os.path.normpath(base / text)) if "\0" not in text else base
        if not path.is_relative_to(self.root) or path == base:
            self.problems.append(
                f"{where}: the path '{short(text)}' leaves the data set; ignored (put the table "
                "into a folder above its pictures)"
            )
            return None
        if os.path.isfile(path):  # False, not an error, for a name that is too long
            return path
        # Tables written on Windows or macOS may differ from the file in case, and in how an "ü" is
        # put together.
        named = path.stem if path.suffix.lower() in PICTURES else path.name
        beside = [
            file
            for file in self._by_stem.get(folded(named), [])
            if folded(str(file.parent)) == folded(str(path.parent))
        ]
        fits = [file for file in beside if folded(str(file)) == folded(str(path))]
        if not fits and path.suffix.lower() not in PICTURES:
            fits = beside
        if len(fits) > 1:
            names = ", ".join(short(file.name) for file in fits[:3])
            self.errors.append(f"{where}: several files fit '{short(text)}': {names}")
            return None
        if fits:
            return fits[0]
        hint = f" (there is {short(beside[0].name)})" if beside else ""
        elsewhere = self.picture(named)
        if elsewhere and not beside:
            hint = f" (there is {short(Path(os.path.relpath(elsewhere, base)).as_posix())})"
        self.problems.append(f"{where}: missing file {short(text)}{hint}")
        return None

    # --- filling ---------------------------------------------------------------------------

    def add(
        self,
        name: str,
        image: Path | None,
        *,
        where: str = "",
        mask: Path | None = None,
        second_mask: Path | None = None,
        outlines: tuple[Path, ...] = (),
        diagnosis: str | None = None,
        reading: Diagnosis | None = None,
        malignant: str | bool | None = None,
        lesion: str | None = None,
        patient: str | None = None,
        age: str | None = None,
        sex: str | None = None,
        site: str | None = None,
        skin_type: str | None = None,
        skin_tone: int | None = None,
        modality: str | None = None,
        licence: str | None = None,
        official: str | None = None,
    ) -> None:
        """Turn the cells of one row into a record, or into a problem or an error.

        `reading` is what the diagnosis means where it is not for `interpret` to say.
        """
        where = short(where or name)
        if image is None:
            self.problems.append(f"{short(name)}: its picture is missing")
            return
        diagnosis = stated(diagnosis)
        if reading is None and diagnosis is not None:
            reading = interpret(diagnosis)
        flag, known = self._flag(malignant, where)
        if not known:
            return
        reading = reading or Diagnosis("unclear")
        if reading.kind == "number":
            self.errors.append(
                f"{where}: diagnosis '{short(diagnosis or '')}' is a number that names no class; "
                "write names (melanoma, nevus, ...)"
            )
            return
        says = reading.malignant
        if flag is not None and says is not None and flag != says:
            if reading.label == "akiec":
                # A precursor: not every publisher counts it as malignant, this project does.
                self.count("actinic keratoses that are stated as benign; they count as malignant")
            else:
                words = {True: "malignant", False: "benign"}
                line = (
                    f"{where}: diagnosis '{short(diagnosis or '')}' is {words[says]}, but it is "
                    f"stated as {words[flag]}"
                )
                if self.reader.strict:
                    self.errors.append(line)
                else:
                    self.problems.append(f"{line}; left out")
                return
        record = Record(
            id=name,
            image=image,
            mask=mask,
            second_mask=second_mask,
            outlines=outlines,
            diagnosis=diagnosis,
            label=reading.label,
            malignant=flag if says is None else says,
            lesion_id=self.identity("lesion", lesion),
            patient_id=self.identity("patient", patient),
            age=self._age(age, where, isic_number(name, image.name)),
            sex=self._one_of(_SEXES, sex, "sex", where),
            site=stated(site),
            skin_type=self._skin_type(skin_type, where),
            skin_tone=skin_tone,
            modality=modality,
            licence=stated(licence) or self.reader.licence,
            official=official,
        )
        if name in self.records:
            line = f"{where}: {short(name)} is listed more than once"
            if self._where[name] != where:
                line += f" (first: {self._where[name]})"
            kept = self.records[name]
            same_files = replace(
                record,
                image=kept.image,
                mask=kept.mask,
                second_mask=kept.second_mask,
                outlines=kept.outlines,
            )
            if self.reader.strict or same_files != kept:
                self.errors.append(f"{line}; each picture needs a line and an id of its own")
            else:
                self.problems.append(f"{line}; first kept")
            return
        if diagnosis is not None and reading.kind in self._words:
            self._words[reading.kind][diagnosis] += 1
        if record.site and region(record.site) is None:
            self._words["site"][record.site] += 1
        self.records[name] = record
        self._where[name] = where

    def identity(self, kind: str, text: str | None) -> str | None:
        """The id of a lesion or patient as it was first written; see `id_key`."""
        known = stated(text)
        return None if known is None else self._ids.setdefault((kind, id_key(known)), known)

    def count(self, what: str, number: int = 1) -> None:
        """Count something for a note."""
        self._counts[what] += number

    def finish(self) -> DataSet:
        """The data set of all that was added; RowErrors or DataError where there is none."""
        if self.table_path and self.table_path not in self._read:
            raise DataError(
                "{path}: not a table that {reader} reads; name the data set's folder, or read the "
                "table as csv={path}",
                code="data_other_table",
                path=short(str(self.table_path), 300),
                reader=self.reader.name,
            )
        if self.errors:
            raise RowErrors(tuple(map(printable, self.errors)))
        if not self.records:
            first = f" ({self.problems[0]})" if self.problems else ""
            raise self.unfit(f"no picture found{first}")
        notes = (
            *self._word_notes(),
            *self._group_notes(),
            *self._part_notes(),
            *self.notes,
            *self._file_notes(),
        )
        return DataSet(
            name=self.reader.name,
            # With the table alone, another one beside it might be read the next time.
            root=self.table_path or self.root,
            records=tuple(self.records.values()),
            problems=tuple(map(printable, self.problems)),
            licence=self._licence(),
            procedural=self.procedural,
            same=tuple(pair for pair in self.same if self.records.keys() >= set(pair)),
            notes=tuple(map(printable, notes)),
            ungrouped=self.ungrouped,
        )

    def _licence(self) -> str:
        if not self.reader.licensed_by_row:
            return self.reader.licence
        return "; ".join(dict.fromkeys(r.licence for r in self.records.values() if r.licence))

    def _word_notes(self) -> Iterator[str]:
        for kind, what in (
            ("other", "diagnoses that are none of the classes, taken as 'other'"),
            ("unclear", "diagnoses that name no class for sure, left without a label"),
            ("flag", "diagnoses that say no more than benign or malignant, left without a label"),
            (
                "site",
                "sites of no body region that is known (such as head/neck, trunk, lower "
                "extremity), as good as not stated to a classifier",
            ),
        ):
            words = self._words[kind]
            if words:
                named = [f"'{short(word, 40)}' {n}" for word, n in words.most_common()]
                yield f"{what}: {words.total()} ({_list(named)})"
        yield from (f"{what}: {number}" for what, number in self._counts.items())

    def _group_notes(self) -> Iterator[str]:
        alone = sum(r.lesion_id is None and r.patient_id is None for r in self.records.values())
        if alone == len(self.records):
            yield "no lesion or patient is stated: each picture counts as a lesion of its own"
        elif alone:
            yield f"pictures without a lesion or patient, each counted as a lesion: {alone}"

    def _part_notes(self) -> Iterator[str]:
        loose = sum(record.official is None for record in self.records.values())
        if 0 < loose < len(self.records):
            yield f"pictures of no part, beside others of one; they count as training: {loose}"

    def _file_notes(self) -> Iterator[str]:
        used = {record.image for record in self.records.values()}
        for record in self.records.values():
            drawn = (record.mask, record.second_mask, *record.outlines)
            used |= {mask for mask in drawn if mask}
        unused = [file for file in self.images if file not in used]
        if unused:
            yield f"pictures here that are not used: {len(unused)} ({self._places(unused)})"
        if kinds := self._unread_kinds():
            yield kinds
        tables = [f for f in self.files if f.suffix.lower() in TABLES and f not in self._read]
        if tables:
            yield f"tables that are not read: {len(tables)} ({_list([f.name for f in tables])})"

    def _unread_kinds(self) -> str:
        endings = Counter(
            file.suffix.lower() or "(no ending)"
            for file in self.files
            if file.suffix.lower() not in (PICTURES | TABLES | _ASIDE) and file not in self._read
        )
        if not endings:
            return ""
        named = [f"{ending} {number}" for ending, number in endings.most_common()]
        return f"files of a kind that is not read: {endings.total()} ({_list(named)})"

    def _places(self, files: Iterable[Path]) -> str:
        """Folders of the files, with counts."""
        parents = Counter(f.parent.relative_to(self.root).as_posix() for f in files)
        return _list(
            [f"{'its top' if p == '.' else short(p, 60)} {n}" for p, n in parents.most_common()]
        )

    # --- cells -----------------------------------------------------------------------------

    def _flag(self, value: str | bool | None, where: str) -> tuple[bool | None, bool]:
        """What a cell says of malignancy, and whether the row can be used."""
        if isinstance(value, bool):
            return value, True
        text = stated(value)
        if text is None:
            return None, True
        if text.lower() in _FLAGS:
            return _FLAGS[text.lower()], True
        reading = interpret(text)
        if reading.kind == "flag":
            return reading.malignant, True
        if text.lower().startswith("indeterminate"):
            self.count("pictures whose malignancy is stated as indeterminate")
            return None, True
        line = f"{where}: malignant '{short(text)}' is neither yes nor no"
        if self.reader.strict:
            self.errors.append(line)
            return None, False
        self.problems.append(line)
        return None, True

    def _age(self, text: str | None, where: str, number: int | None) -> float | None:
        text = stated(text)
        if text is None:
            return None
        match = _AGE.fullmatch(text)
        age = float(match.group(1).replace(",", ".")) if match else -1.0
        if not 0 <= age <= 120:
            self.problems.append(f"{where}: age '{short(text)}' is not a number of years")
            return None
        if not age and number in _HAM10000:
            self.count("ages of 0, as HAM10000 writes one that is not known; not used")
            return None
        return age

    def _skin_type(self, text: str | None, where: str) -> int | None:
        bare = re.sub(
            r"^(fitzpatrick|fst|skin|haut|(f|ph)oto|typ[eo]?|tipo|\s)+|[.,]0$",
            "",
            (text or "").strip().lower(),
        )
        return self._one_of(_SKIN_TYPES, bare, "skin type", where)

    def _one_of(
        self, known: Mapping[str, Known], text: str | None, what: str, where: str
    ) -> Known | None:
        text = stated(text)
        if text is None:
            return None
        value = known.get(text.lower())
        if value is None:
            self.problems.append(f"{where}: {what} '{short(text)}' is not known")
        return value


def part_of(name: str) -> str | None:
    """The part that a folder or a cell names: 'train_dir', 'Training', 'val_images', 'testset'."""
    name = re.sub(r"hold[\W_]out", "holdout", unaccented(name.lower()))
    words = [
        re.sub(r"(?<=[a-z])(dir|images|folder|s?(sett?|saet|menge|data|daten|bilder))$", "", word)
        for word in re.findall("[a-z]+", name)
        if word not in _PART_FILLERS
    ]
    part = _PARTS.get(words[0]) if len(words) == 1 else None
    # What medicine calls an external validation is a test.
    return "test" if part == "val" and "external" in name else part


def stated(text: str | None) -> str | None:
    """The text of a cell, None where it says that nothing is known."""
    text = (text or "").strip()
    # "kA" is German for none; "KA" a keratoacanthoma.
    return None if text == "kA" or text.lower().strip(" .()<>[]") in _UNSTATED else text


def folded(name: str) -> str:
    """A name by which files are found whatever their case: "ü" is one letter, never "u" and "¨"."""
    return unicodedata.normalize("NFC", name).lower()


def unaccented(text: str) -> str:
    """Text whose letters have no marks: "validacion" of "validación"."""
    for letter, plain in (("ı", "i"), ("ø", "o"), ("æ", "ae"), ("ł", "l")):
        text = text.replace(letter, plain)
    letters = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", bare)  # Korean syllables had come apart


def without_ending(text: str) -> str:
    """A picture's name as a table states it, without folder and ending."""
    return PICTURE_ENDING.sub("", text.replace("\\", "/").rpartition("/")[2])


def _list(names: list[str]) -> str:
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(short(name, 100) for name in names[:MOST_NAMED]) + more


def _walk(root: Path, problems: list[str]) -> Iterator[Path]:
    def failed(error: OSError) -> None:
        problems.append(f"{short(str(error.filename), 200)}: {error.strerror}")

    for folder, names in walk(root, failed):
        for name in names:
            file = Path(folder, name)
            if name.startswith("."):
                continue
            if _is_text(str(file)):
                yield file
            else:
                problems.append(
                    f"{short(str(file), 200)}: its name is not UTF-8 (was it unpacked on another "
                    "system?); left out, rename it"
                )


def _is_text(name: str) -> bool:
    """Whether a split, a report or a hash can hold the name of a file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
