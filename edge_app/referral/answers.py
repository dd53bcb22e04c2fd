"""Answers of a dermatologist: bytes from outside to a frozen Answer, or one line why not.

An answer is taken only where it names our request and our person, both. What comes in is hostile
until it is read: sizes are bounded, no address in it is followed, no markup is kept.
FHIR R4 here; answers that lie in our DICOM study are read by `edge_app.referral.answers_dicom`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dermedge import UserError
from edge_app.i18n.language import N_
from edge_app.referral import fhir
from edge_app.referral.codes import BETTER_PICTURE, SYSTEMS
from edge_app.referral.form import Identifier, Referral
from edge_app.referral.uids import CODES, study_uid
from edge_app.store.referrals import TAKEN_BACK, UNANSWERED

BYTES = 32_000_000  # of one response
ENTRIES = 500  # of a bundle
TEXT = 20_000  # characters of an answer
NAME = 200  # characters of who it is from
PDF_BYTES = 20_000_000

UNREADABLE = N_("the receiver's answer cannot be read: ask the receiver")
TOO_LARGE = N_("the receiver's answer is too large: ask the receiver for a shorter one")
FOREIGN = N_("an answer that is not to this referral was not taken: {what}")
OTHER_PERSON = N_("an answer of another person was not taken: {what}")
EMPTY = N_("an answer without words was not taken: {what}")
NOT_FINAL = N_("an answer that its author took back or has not written was not taken: {what}")
NOT_RECEIVED = N_("the receiver did not take all of the referral: send it again")

Resource = dict[str, Any]
Find = Callable[[str], bytes]  # of "/Patient?identifier=...": a searchset
Read = Callable[[str], Resource | None]  # of "ServiceRequest/7"; None: it is not there
_REPORT = {"preliminary", "partial", "final", "amended", "corrected", "appended"}
_UNWRITTEN = {"registered", "preparation"}  # announced: there is nothing to read yet
_TASK = {"on-hold", "completed", *UNANSWERED}
# Bidirectional overrides would show a name or a sentence backwards.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_WHEN = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?)?)?")


@dataclass(frozen=True)
class Answer:
    """What somebody answered. It is theirs: never to be mixed with what the model said."""

    referral: str  # its id
    uid: str  # "DiagnosticReport/12", or a SOP Instance UID
    version: str  # of its content: another one is an amended answer
    author: str  # as the receiver states it; empty: not stated
    issued: str  # ISO 8601, as precise as stated; empty: not stated
    status: str  # in the receiver's words, as "final" or "amended"
    text: str
    wants_better_picture: bool
    report: bytes = b""  # a PDF
    more: bool = False  # the receiver has more of it than came along
    replaces: str = ""  # the `uid` of an earlier one, whose content it takes over


class Pool(dict[str, Resource]):
    """What came along by its address, and requests that did not, as they are fetched once."""

    def __init__(self, read: Read | None):
        super().__init__()
        self._read = read

    def request(self, address: str) -> Resource | None:
        """None where nobody can be asked for it; without our number where it is not there."""
        if "identifier" not in self.get(address, {}) and self._read is not None:
            # Ours has a number: one without any, as it may be written there, is another's.
            self[address] = {"identifier": [], **(self._read(address) or {})}
        return self.get(address)


class TakenBack(UserError):
    """An answer that its author takes back; `answer` says which, without its words."""

    def __init__(self, answer: Answer):
        super().__init__(NOT_FINAL, code="answer-not-final", what=answer.uid)
        self.answer = answer


class SaysNothing(TakenBack):
    """Our own Task that says nothing: what it said before, as a rejection, holds no longer."""


@dataclass(frozen=True)
class Sent:
    """What an answer must name to be ours."""

    referral: str
    study_uid: str
    patient_id: str
    request: Identifier
    task: Identifier
    patients: tuple[Identifier, ...]
    uids: frozenset[str] = frozenset()  # of our own instances: they are no answer
    references: frozenset[str] = frozenset()  # as "Patient/7", by which the receiver knows ours
    base: str = ""  # the receiver's FHIR address, without a slash at its end

    @classmethod
    def of(
        cls,
        referral: Referral,
        uids: Sequence[str] = (),
        references: Sequence[str] = (),
        base: str = "",
    ) -> Sent:
        """Of a referral; `uids` of its parcels, `references` from `assigned`."""
        return cls(
            referral=referral.id,
            study_uid=study_uid(referral),
            patient_id=referral.patient_id,
            request=fhir.service_request(referral),
            task=fhir.task(referral),
            patients=fhir.patients(referral),
            uids=frozenset(uids),
            references=frozenset(references),
            base=base.rstrip("/"),
        )

    def to_json(self) -> dict[str, Any]:
        """To be kept until the answer comes."""
        return {**asdict(self), "uids": sorted(self.uids), "references": sorted(self.references)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Sent:
        return cls(
            **{
                **kept,
                "request": Identifier(**kept["request"]),
                "task": Identifier(**kept["task"]),
                "patients": tuple(Identifier(**it) for it in kept["patients"]),
                "uids": frozenset(kept["uids"]),
                "references": frozenset(kept["references"]),
            }
        )


def from_fhir(
    data: bytes, sent: Sequence[Sent], read: Read | None = None
) -> tuple[tuple[Answer, ...], tuple[UserError, ...]]:
    """The answers in a resource or a searchset, and why others were not taken.

    DiagnosticReport and Communication that are based on our ServiceRequest, and our own Task where
    it says something; where it does not, `SaysNothing`. Other resources only tell who is who.
    `read` : fetches a request that an answer names and that did not come along; without it, its
    reference is taken for it. Any thread.

    Raises
    ------
    UserError : `data` is no FHIR JSON, or too large.
    """
    whole = read_json(data)
    pool = Pool(read)
    for address, resource in _resources(whole):
        kind, number = resource.get("resourceType"), resource.get("id")
        if isinstance(kind, str) and isinstance(number, str):
            pool.setdefault(f"{kind}/{number}", resource)
        if address:
            pool.setdefault(address, resource)
    answers: dict[str, Answer] = {}
    refused = []
    for _, resource in _resources(whole):
        kind = resource.get("resourceType")
        if kind not in ("DiagnosticReport", "Communication", "Task"):
            continue
        if _str(resource.get("status")) in _UNWRITTEN:
            continue
        try:
            answer = _answer(resource, sent, pool)
        except UserError as error:
            refused.append(error)
        else:
            answers[answer.uid] = answer
    return tuple(answers.values()), tuple(refused)


def located(searchset: bytes, sent: Sequence[Sent], read: Read) -> dict[str, frozenset[str]]:
    """By referral, by which references a receiver knows ours now.

    `searchset` : of the requests and Tasks, by the requests' numbers; `read` : fetches the person
    of one that has another address by now. Raises UserError as `from_fhir`, and where it was not
    searched for by numbers.
    """
    found: dict[str, frozenset[str]] = {}
    whole = [it for _, it in _resources(read_json(searchset))]
    requests = [it for it in whole if it.get("resourceType") == "ServiceRequest"]
    if not all(_identified(it, [mine.request for mine in sent]) for it in requests):
        raise UserError(UNREADABLE, code="answer-unreadable")
    for mine in sent:
        ours = [it for it in requests if _identified(it, [mine.request])]
        tasks = [it for it in whole if it.get("resourceType") == "Task"]
        tasks = [it for it in tasks if _identified(it, [mine.task])]
        there = {f"{it['resourceType']}/{_str(it.get('id'))}" for it in (*ours, *tasks)}
        kept = mine.references if there <= mine.references else frozenset()
        people = {_address(_dict(it.get("subject")), mine) for it in ours} - kept
        there |= {
            it
            for it in people
            if re.fullmatch(r"Patient/[A-Za-z0-9.-]{1,64}", it)
            and _identified(read(it) or {}, mine.patients)
        }
        if ours:
            found[mine.referral] = kept | there
    return found


def is_there(mine: Sent, read: Read) -> bool:
    """Whether a receiver still has our request where it had it; `read` : fetches it."""
    requests = [it for it in mine.references if it.startswith("ServiceRequest/")]
    return any(_identified(read(it) or {}, [mine.request]) for it in requests)


def has_more(searchset: bytes) -> bool:
    """Whether a searchset is one page of several. Raises UserError as `from_fhir`."""
    links = _dicts(read_json(searchset).get("link"))
    return any(_str(link.get("relation")) == "next" for link in links)


def assigned(transaction: bytes, response: bytes, find: Find | None = None) -> tuple[str, ...]:
    """By which references, as "Patient/7", the receiver knows what a transaction sent.

    `find` : searches for what was there before, of which some (Azure) do not say where it is.

    Raises
    ------
    UserError : the response does not say that each entry is there, as the same type.
    """
    # Pictures may have come along, and a receiver may show all of it again.
    asked, got = json.loads(transaction), read_json(response, most_of(transaction))
    entries = _dicts(got.get("entry"))
    wanted = _dicts(asked.get("entry"))
    found = []
    if got.get("type") == "transaction-response" and len(entries) == len(wanted):
        for entry, request in zip(entries, wanted, strict=True):
            said = _dict(entry.get("response"))
            kind = _str(_dict(request.get("resource")).get("resourceType"))
            status, where = _str(said.get("status")), _str(said.get("location"))
            if find and not where and re.match(r"200\b", status):
                where = _only(find(f"/{kind}?{request['request']['ifNoneExist']}"), kind)
            location = re.search(
                rf"(?:^|/)({kind}/[A-Za-z0-9.-]{{1,64}})(?:/_history/[^/]+)?$", where
            )
            if location and re.match(r"20[01]\b", status):
                found.append(location[1])
    if not found or len(found) != len(wanted):
        raise UserError(NOT_RECEIVED, code="referral-not-received")
    return tuple(found)


def _only(searchset: bytes, kind: str) -> str:
    """The reference of the only resource of that kind in it; empty where there are others."""
    found = [it for _, it in _resources(read_json(searchset)) if it.get("resourceType") == kind]
    return f"{kind}/{_str(found[0].get('id'))}" if len(found) == 1 else ""


def most_of(transaction: bytes) -> int:
    """Bytes that a receiver's answer to it may have."""
    return max(BYTES, 2 * len(transaction) + 2**20)


def read_json(data: bytes, most: int = BYTES) -> Resource:
    """Bounded JSON of an object, without names that come twice; UserError otherwise."""
    if len(data) > most:
        raise UserError(TOO_LARGE, code="answer-large")
    try:
        value = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(UNREADABLE, code="answer-unreadable")
    return value


def clean(text: str, limit: int) -> tuple[str, bool]:
    """Text without characters that hide or turn others, and whether it was cut at `limit`."""
    text = re.sub(r"\r\n|[\r\v\f\x85]", "\n", text)  # as a word processor or HL7 v2 ends lines
    text = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text).strip()
    return text[:limit], len(text) > limit


def pdf(data: bytes) -> bytes:
    """The same bytes where they are a PDF of a bearable size; UserError otherwise."""
    if not data.startswith(b"%PDF-"):
        raise UserError(UNREADABLE, code="answer-unreadable")
    if len(data) > PDF_BYTES:
        raise UserError(TOO_LARGE, code="answer-large")
    return data


# ---------------------------------------------------------------------------- whose it is


def _answer(resource: Resource, sent: Sequence[Sent], pool: Pool) -> Answer:
    kind, number = resource["resourceType"], _str(resource.get("id"))
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", number):
        raise UserError(UNREADABLE, code="answer-unreadable")
    uid = f"{kind}/{number}"
    mine = _whose(uid, resource, sent, pool)
    status = _str(resource.get("status"))
    canonical = json.dumps(resource, sort_keys=True).encode()
    answer = Answer(
        referral=mine.referral,
        uid=uid,
        version=hashlib.sha256(canonical).hexdigest()[:16],
        author=_author(resource, pool),
        issued=_when(resource),
        status=status,
        text="",
        wants_better_picture=False,
    )
    if status in TAKEN_BACK and kind != "Task":
        raise TakenBack(answer)
    if kind == "Task":
        if status not in _TASK:
            raise SaysNothing(answer)
    elif status not in (_REPORT if kind == "DiagnosticReport" else {"completed", "in-progress"}):
        raise UserError(NOT_FINAL, code="answer-not-final", what=uid)
    words, report, more = _words(kind, resource)
    better = _better(resource)
    if kind != "Task" and not (words or report):  # markup alone is not read, but it is there
        more |= bool(_str(_dict(resource.get("text")).get("div")))
    if not (words or report or better or more):
        if kind != "Task":
            raise UserError(EMPTY, code="answer-empty", what=uid)
        if status not in UNANSWERED:
            raise SaysNothing(answer)
    text, cut = clean("\n\n".join(words), TEXT)
    return replace(answer, text=text, wants_better_picture=better, report=report, more=more or cut)


def _whose(uid: str, resource: Resource, sent: Sequence[Sent], pool: Pool) -> Sent:
    """The referral that it answers; every request that it names must be that one."""
    task = resource["resourceType"] == "Task"
    for mine in sent:
        if task:
            ours = _identified(resource, [mine.task]) or (
                uid in mine.references and not resource.get("identifier")
            )
        else:
            based = resource.get("basedOn")
            requests = [_dict(it) for it in based] if isinstance(based, list) else []
            ours = bool(requests) and all(
                _names(it, "ServiceRequest", [mine.request], mine, pool) for it in requests
            )
        if not ours:
            continue
        person = _dict(resource.get("for" if task else "subject"))
        if not _names(person, "Patient", mine.patients, mine, pool):
            raise UserError(OTHER_PERSON, code="answer-other-person", what=uid)
        return mine
    raise UserError(FOREIGN, code="answer-foreign", what=uid)


def _names(
    reference: Resource,
    kind: str,
    identifiers: Sequence[Identifier],
    mine: Sent,
    pool: Pool,
) -> bool:
    """Whether a reference means one of ours: each way in which it names something must."""
    said = []
    if "identifier" in reference:
        said.append(_identified({"identifier": [reference["identifier"]]}, identifiers))
    if "reference" in reference:
        address = _address(reference, mine)
        by_address = address.startswith(f"{kind}/") and address in mine.references
        # A server that was set up again gives another's request the address that ours had.
        asked = by_address and kind == "ServiceRequest"
        target = pool.request(address) if asked else pool.get(address)
        if target is not None and "identifier" in target:
            by_address = target.get("resourceType") == kind and _identified(target, identifiers)
        said.append(by_address)
    return bool(said) and all(said)


def _address(reference: Resource, mine: Sent) -> str:
    """What a reference names, as "Patient/7" where that is at the receiver."""
    address = re.sub(r"/_history/[^/]+$", "", _str(reference.get("reference")))
    return address.removeprefix(mine.base + "/") if mine.base else address


def _identified(resource: Mapping[str, Any], identifiers: Sequence[Identifier]) -> bool:
    stated = {
        (_str(it.get("system")), _str(it.get("value"))) for it in _dicts(resource.get("identifier"))
    }
    return any((it.system, it.value) in stated for it in identifiers)


# ---------------------------------------------------------------------------- what it says


def _words(kind: str, resource: Resource) -> tuple[list[str], bytes, bool]:
    """Texts, a PDF, and whether there is more than came along."""
    words, attachments, report, more = [], [], b"", False
    if kind == "DiagnosticReport":
        words.append(_str(resource.get("conclusion")))
        words += [_spoken(it) for it in _dicts(resource.get("conclusionCode"))]
        attachments = _dicts(resource.get("presentedForm"))
        more = any(_dicts(resource.get(name)) for name in ("result", "media"))
    elif kind == "Communication":
        payloads = _dicts(resource.get("payload"))
        words += [_str(it.get("contentString")) for it in payloads]
        attachments = [
            _dict(it["contentAttachment"]) for it in payloads if "contentAttachment" in it
        ]
        more = any("contentReference" in it for it in payloads)
    else:
        words.append(_spoken(_dict(resource.get("statusReason"))))
        for output in _dicts(resource.get("output")):
            words += [_str(output.get(f"value{name}")) for name in ("String", "Markdown")]
            words.append(_spoken(_dict(output.get("valueCodeableConcept"))))
            attachments += [_dict(it) for name, it in output.items() if name == "valueAttachment"]
            more |= any(_is_more(name, it) for name, it in output.items())
    words += [_str(it.get("text")) for it in _dicts(resource.get("note"))]
    for attachment in attachments:
        media, _, parameters = _str(attachment.get("contentType")).partition(";")
        media = media.strip().lower()
        try:
            data = _decoded(attachment)
            whole = pdf(data) if media == "application/pdf" and data else b""
        except UserError:  # the words beside it count all the same
            data = whole = b""
        if whole and not report:
            report = whole
        elif media == "text/plain" and data:
            words.append(_text(data, parameters))
        else:
            more = True
    return [word for word in words if word.strip()], report, more


def _is_more(name: str, value: Any) -> bool:
    """Whether that part of a Task's output says what is not read here."""
    if not name.startswith("value"):
        return False
    if name == "valueReference":  # answers that come by themselves
        kind = re.split("[/?]", _str(_dict(value).get("reference")).removeprefix("urn:"))
        return not {"DiagnosticReport", "Communication"} & {*kind, _str(_dict(value).get("type"))}
    return name[5:] not in ("String", "Markdown", "CodeableConcept", "Attachment")


def _text(data: bytes, parameters: str) -> str:
    """A plain text by the charset that it is said to have, else as UTF-8."""
    charset = re.search(r"charset\s*=\s*\"?([\w.:+-]+)", parameters, re.IGNORECASE)
    name = charset[1] if charset else "utf-8"
    try:
        text = data.decode(name, "replace")
    except (LookupError, ValueError):
        text = data.decode("utf-8", "replace")
    return text.removeprefix("\ufeff")


def _decoded(attachment: Resource) -> bytes:
    """The bytes of an attachment that came along; none of one that lies elsewhere."""
    text = "".join(_str(attachment.get("data")).split())  # FHIR lets it be in lines
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(UNREADABLE, code="answer-unreadable") from None
    size = attachment.get("size")
    if data and isinstance(size, int) and size != len(data):
        raise UserError(UNREADABLE, code="answer-unreadable")
    return data


def _better(resource: Resource) -> bool:
    """Whether another picture is asked for, by a code of DICOM or of ours."""
    wanted = {(SYSTEMS[BETTER_PICTURE[1]], BETTER_PICTURE[0]), (CODES, "better-picture")}
    concepts = [_dict(resource.get(name)) for name in ("statusReason", "businessStatus")]
    for name in ("conclusionCode", "reasonCode", "category"):
        concepts += _dicts(resource.get(name))
    for output in _dicts(resource.get("output")):
        concepts += [_dict(output.get("type")), _dict(output.get("valueCodeableConcept"))]
    stated = {
        (_str(coding.get("system")), _str(coding.get("code")))
        for concept in concepts
        for coding in _dicts(concept.get("coding"))
    }
    return bool(wanted & stated)


def _spoken(concept: Resource) -> str:
    """A CodeableConcept in the receiver's words."""
    displays = [_str(it.get("display")) for it in _dicts(concept.get("coding"))]
    return _str(concept.get("text")) or ", ".join(word for word in displays if word)


def _author(resource: Resource, pool: Mapping[str, Resource]) -> str:
    references = [*_dicts(resource.get("resultsInterpreter")), *_dicts(resource.get("performer"))]
    references += [_dict(resource.get(name)) for name in ("sender", "owner")]
    within = {f"#{_str(it.get('id'))}": it for it in _dicts(resource.get("contained"))}
    names = []
    for reference in references:
        address = _str(reference.get("reference"))
        person = within.get(address) or pool.get(address, {})
        names.append(_str(reference.get("display")) or _named(person.get("name")))
    found = ", ".join(dict.fromkeys(name for name in names if name.strip()))
    return clean(" ".join(found.split()), NAME)[0]


def _named(name: Any) -> str:
    """The name of a Practitioner (a list of HumanName) or an Organization (a string)."""
    if isinstance(name, str):
        return name
    for human in _dicts(name):
        given = human.get("given")
        parts = [_str(it) for it in given] if isinstance(given, list) else []
        return _str(human.get("text")) or " ".join([*parts, _str(human.get("family"))]).strip()
    return ""


def _when(resource: Resource) -> str:
    for name in ("issued", "effectiveDateTime", "sent", "lastModified"):
        stated = _str(resource.get(name))
        if _WHEN.fullmatch(stated):
            return stated
    return ""


# ---------------------------------------------------------------------------- hostile JSON


def _resources(whole: Resource) -> Iterator[tuple[str, Resource]]:
    """(address, resource) of a bundle's entries, or of the one resource."""
    if whole.get("resourceType") != "Bundle":
        yield "", whole
        return
    entries = _dicts(whole.get("entry"))
    if len(entries) > ENTRIES:
        raise UserError(TOO_LARGE, code="answer-large")
    for entry in entries:
        if isinstance(entry.get("resource"), dict):
            yield _str(entry.get("fullUrl")), entry["resource"]


def _unique(pairs: list[tuple[str, Any]]) -> Resource:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _dict(value: Any) -> Resource:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Resource]:
    return [it for it in value if isinstance(it, dict)] if isinstance(value, list) else []


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""
