"""Answers that lie in our DICOM study: a structured report or a PDF that is not ours.

Taken only where Study Instance UID and Patient ID are both ours. Bytes are hostile: only
uncompressed transfer syntaxes are read (a deflated one may unfold to anything), trees are bounded.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dermedge import UserError
from edge_app.i18n.language import N_
from edge_app.referral.answers import (
    BYTES,
    EMPTY,
    FOREIGN,
    NAME,
    OTHER_PERSON,
    TEXT,
    TOO_LARGE,
    UNREADABLE,
    Answer,
    Sent,
    clean,
    pdf,
)
from edge_app.referral.codes import BETTER_PICTURE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

REPORTS = {  # SOP classes of structured reports with text
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D
}
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_SYNTAXES = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
OBSERVER = ("121008", "DCM")  # Person Observer Name, of TID 1003
# Value types (PS3.3 C.17.3.2.1) whose value is one element.
_PLAIN = {"TEXT": "TextValue", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime",
          "PNAME": "PersonName"}  # fmt: skip
_DEPTH, _NODES = 32, 5000
OTHER_KIND = N_(
    "beside the pictures of this referral lies a file of a kind that is not read here, look at it "
    "at the receiver: {what}"
)


def from_dicom(data: bytes, sent: Sequence[Sent]) -> Answer:
    """The answer in a DICOM file. Any thread.

    Raises
    ------
    UserError : it is not to a referral of ours, of another person, one of our own instances, of
        another kind, without words, damaged, or too large.
    """
    if len(data) > BYTES:
        raise UserError(TOO_LARGE, code="answer-large")
    try:
        # Values are read when they are asked for, and pydicom would print those that it dislikes.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = _read(data)
            uid = _uid(ds, "SOPInstanceUID")
            mine = _whose(ds, uid, sent)
            if uid in mine.uids:
                raise UserError(FOREIGN, code="answer-own", what=uid)
            return _answer(ds, uid, mine, data)
    except UserError:
        raise
    # pydicom raises whatever the bytes lead it to; none of it may end a poll.
    except Exception:
        raise UserError(UNREADABLE, code="answer-unreadable") from None


def _read(data: bytes) -> Dataset:
    import pydicom

    if data[128:132] != b"DICM":
        raise UserError(UNREADABLE, code="answer-unreadable")
    meta = pydicom.filereader.read_dataset(
        io.BytesIO(data[132:]), False, True, stop_when=lambda tag, *_: tag.group != 2
    )
    if str(meta.get("TransferSyntaxUID", "")) not in _SYNTAXES:
        raise UserError(UNREADABLE, code="answer-unreadable")
    return pydicom.dcmread(io.BytesIO(data))


def _whose(ds: Dataset, uid: str, sent: Sequence[Sent]) -> Sent:
    study, person = _uid(ds, "StudyInstanceUID"), str(ds.get("PatientID", "") or "").strip()
    for mine in sent:
        if study == mine.study_uid:
            if person != mine.patient_id.strip():
                raise UserError(OTHER_PERSON, code="answer-other-person", what=uid)
            return mine
    raise UserError(FOREIGN, code="answer-foreign", what=uid)


def _answer(ds: Dataset, uid: str, mine: Sent, data: bytes) -> Answer:
    kind = str(ds.get("SOPClassUID", ""))
    lines: list[str] = []
    report, better = b"", False
    observers: list[str] = []
    if kind == PDF:
        length = ds.get("EncapsulatedDocumentLength")
        document = bytes(ds.EncapsulatedDocument)
        report = pdf(document[: int(length)] if length else document)
        lines.append(str(ds.get("DocumentTitle", "") or ""))
    elif kind in REPORTS:
        items = list(_items(ds))
        lines += [it.line for it in items]
        better = any(it.code == BETTER_PICTURE for it in items)
        observers = [it.value for it in items if it.concept == OBSERVER]
    else:
        raise UserError(OTHER_KIND, code="answer-kind", what=uid)
    text, cut = clean("\n".join(line for line in lines if line.strip()), TEXT)
    if not (text or report or better):
        raise UserError(EMPTY, code="answer-empty", what=uid)
    return Answer(
        referral=mine.referral,
        uid=uid,
        version=hashlib.sha256(data).hexdigest()[:16],
        author=_author(ds, observers),
        issued=_issued(ds),
        status=_status(ds),
        text=text,
        wants_better_picture=better,
        report=report,
        more=cut,
        replaces=_predecessor(ds, mine),
    )


def _predecessor(ds: Dataset, mine: Sent) -> str:
    """The report that it amends (PS3.3 C.17.2); our own measures are none."""
    for study in ds.get("PredecessorDocumentsSequence", []):
        for series in study.get("ReferencedSeriesSequence", []):
            for item in series.get("ReferencedSOPSequence", []):
                uid = _uid(item, "ReferencedSOPInstanceUID")
                if _uid(study, "StudyInstanceUID") == mine.study_uid and uid not in mine.uids:
                    return uid
    return ""


class _Item(NamedTuple):
    """One of the content tree that says something."""

    concept: tuple[str, str]  # what it is about: a code and its scheme
    value: str  # as people write it
    code: tuple[str, str]  # of its value; empty: it is none
    line: str


def _items(ds: Dataset) -> Iterator[_Item]:
    stack: list[tuple[Any, int]] = [(it, 0) for it in reversed(ds.get("ContentSequence", []))]
    count = 0
    while stack:
        item, depth = stack.pop()
        count += 1
        if count > _NODES or depth > _DEPTH:
            raise UserError(TOO_LARGE, code="answer-large")
        about, kind = item.get("ConceptNameCodeSequence"), str(item.get("ValueType", ""))
        name, concept = _meaning(about), _code(about)
        value, code = "", ("", "")
        if kind == "CODE":
            values = item.get("ConceptCodeSequence")
            value, code = _meaning(values), _code(values)
        elif kind == "NUM":
            value = _number(item)
        elif kind in _PLAIN:
            value = _written(kind, str(item.get(_PLAIN[kind], "") or ""))
        if value.strip():
            yield _Item(concept, value, code, f"{name}: {value}" if name else value)
        elif kind == "CONTAINER" and name:
            yield _Item(concept, "", code, f"{name}:")
        stack += [(it, depth + 1) for it in reversed(item.get("ContentSequence", []))]


def _written(kind: str, value: str) -> str:
    """A value as people write it: DICOM has names, dates and times without gaps (PS3.5, 6.2)."""
    if kind == "PNAME":
        return _person(value)
    day, time, zone = r"(\d{4})(\d\d)(\d\d)", r"(\d\d)(\d\d)(\d\d)?(?:\.\d+)?", r"([+-]\d\d)(\d\d)"
    forms = {"DATE": day, "TIME": time, "DATETIME": f"{day}(?:{time}(?:{zone})?)?"}
    found = re.fullmatch(forms[kind], value.strip()) if kind in forms else None
    if not found:
        return value
    parts = list(found.groups())
    days, rest = ([], parts) if kind == "TIME" else (parts[:3], parts[3:])
    groups = ("-".join(days), ":".join(filter(None, rest[:3])), ":".join(filter(None, rest[3:])))
    return " ".join(filter(None, groups))


def _number(item: Any) -> str:
    for measured in item.get("MeasuredValueSequence", []):
        unit = _code(measured.get("MeasurementUnitsCodeSequence"))[0]
        return f"{measured.get('NumericValue', '')} {unit}".removesuffix(" 1").strip()
    return ""


def _meaning(sequence: Any) -> str:
    return str(sequence[0].get("CodeMeaning", "") or "") if sequence else ""


def _code(sequence: Any) -> tuple[str, str]:
    if not sequence:
        return "", ""
    item = sequence[0]
    return str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))


def _author(ds: Dataset, observers: Sequence[str]) -> str:
    """Who signed or wrote it, else who its content names as `observers`."""
    names = [it.get("VerifyingObserverName", "") for it in ds.get("VerifyingObserverSequence", [])]
    names += [it.get("PersonName", "") for it in ds.get("AuthorObserverSequence", [])]
    people = [it for name in names if (it := _person(str(name)))] or [*observers]
    people.append(str(ds.get("InstitutionName", "") or ""))
    found = ", ".join(dict.fromkeys(name for name in people if name.strip()))
    return clean(" ".join(found.split()), NAME)[0]


def _person(name: str) -> str:
    """DICOM's Family^Given^Middle^Prefix^Suffix as people write it; the first of its scripts."""
    name = next((group for group in name.split("=") if group.strip("^ ")), "")
    family, given, middle, prefix, suffix = ([*name.split("^"), "", "", "", ""])[:5]
    return " ".join(part for part in (prefix, given, middle, family, suffix) if part.strip())


def _issued(ds: Dataset) -> str:
    day, time = str(ds.get("ContentDate", "") or ""), str(ds.get("ContentTime", "") or "")
    if not re.fullmatch(r"\d{8}", day):
        return ""
    whole = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    zone = re.fullmatch(r"([+-]\d\d)(\d\d)", str(ds.get("TimezoneOffsetFromUTC", "") or "").strip())
    if zone and re.match(r"\d{6}", time):
        whole += f"T{time[:2]}:{time[2:4]}:{time[4:6]}{zone[1]}:{zone[2]}"
    return whole


def _status(ds: Dataset) -> str:
    """In FHIR's words, so that screens know one set."""
    verified = ds.get("VerificationFlag", "VERIFIED") == "VERIFIED"
    final = verified and ds.get("PreliminaryFlag") != "PRELIMINARY"
    return "final" if final else "preliminary"


def _uid(ds: Dataset, name: str) -> str:
    value = str(ds.get(name, "") or "")
    if not re.fullmatch(r"[0-9.]{1,64}", value):
        raise UserError(UNREADABLE, code="answer-unreadable")
    return value
