"""A referral as one FHIR R4 transaction, written as JSON without a library.

Each resource has an identifier of its own and is created only where none has it (`ifNoneExist`),
so that sending twice makes nothing twice. An identifier never equals an entry's `fullUrl`: servers
rewrite those, and it would never be found again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dermedge
from dermedge import DISCLAIMER
from dermedge.taxonomy import TITLES as CLASSES
from edge_app.presentation.estimate import OUT_OF_DISTRIBUTION
from edge_app.referral import codes
from edge_app.referral.consent import text as consent_text
from edge_app.referral.encoding import encoded
from edge_app.referral.fhir_check import faults
from edge_app.referral.form import (
    DARK_SKIN,
    DEMONSTRATION,
    Findings,
    Identifier,
    Referral,
    ReferredPicture,
)
from edge_app.referral.history import ONSETS, QUESTIONS
from edge_app.referral.uids import SYSTEM, study_uid, urn

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from edge_app.referral.dicom import Instance

Resource = dict[str, Any]

_RISK = {"low": "low", "see a doctor": "moderate", "urgent": "high"}


def transaction(
    referral: Referral, instances: Sequence[Instance] = (), lossy: bool = False
) -> tuple[str, bytes]:
    """The identifier and the bytes of the transaction.

    Parameters
    ----------
    instances : what was made as DICOM; empty: pictures and report travel in here.
    lossy : those pictures as JPEG, not PNG.
    """
    resources = dict(_resources(referral, instances, lossy))
    entries = [_entry(referral, name, resource) for name, resource in resources.items()]
    bundle: Resource = {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": _instant(referral.created),
        "entry": entries,
    }
    digest = hashlib.sha256(_json(bundle)).hexdigest()[:16]
    bundle["identifier"] = {"system": SYSTEM, "value": f"{referral.id}.{digest}"}
    wrong = faults(bundle)
    if wrong:
        raise ValueError(f"not FHIR R4: {wrong[0]}")
    return bundle["identifier"]["value"], _json(bundle)


def service_request(referral: Referral) -> Identifier:
    """What an answer's `basedOn` may name."""
    return Identifier(SYSTEM, f"{referral.id}.request")


def task(referral: Referral) -> Identifier:
    """What to ask the receiver's Task by."""
    return Identifier(SYSTEM, f"{referral.id}.task")


def patients(referral: Referral) -> tuple[Identifier, ...]:
    """What an answer's `subject` may name."""
    return referral.identifiers or (Identifier(SYSTEM, referral.pseudonym),)


def _resources(
    referral: Referral, instances: Sequence[Instance], lossy: bool
) -> Iterator[tuple[str, Resource]]:
    """Name and resource; what others refer to comes first."""
    yield "patient", _patient(referral)
    yield "device", _device(referral)
    yield "body", _body(referral)
    yield "consent", _consent(referral)
    history = _history(referral)
    if history:
        yield "history", history
    if instances:
        yield "study", _study(referral, instances)
        pictured = {picture.id: "study" for picture in referral.pictures}
    else:
        pictured = {picture.id: f"picture-{n}" for n, picture in enumerate(referral.pictures, 1)}
        for picture in referral.pictures:
            yield pictured[picture.id], _document(referral, pictured[picture.id], picture, lossy)
        if referral.report:
            yield "report", _page(referral)
    risks = []
    for number, picture in enumerate(referral.pictures, 1):
        if picture.findings is not None:
            risks.append(f"risk-{number}")
            basis = pictured[picture.id]
            yield risks[-1], _risk(referral, risks[-1], number, picture.findings, basis)
    info = dict.fromkeys(["consent", *(["history"] if history else []), *pictured.values(), *risks])
    if referral.report and not instances:
        info["report"] = None
    yield "request", _request(referral, list(info))
    yield "task", _task(referral)


# ---------------------------------------------------------------------------- resources


def _patient(referral: Referral) -> Resource:
    found: Resource = {
        "resourceType": "Patient",
        "identifier": [{"system": it.system, "value": it.value} for it in patients(referral)],
        "gender": referral.sex or "unknown",
    }
    if not referral.pseudonymous and referral.birth_year is not None:
        found["birthDate"] = f"{referral.birth_year:04d}"
    return found


def _device(referral: Referral) -> Resource:
    return {
        "resourceType": "Device",
        "identifier": [_own(f"software.{dermedge.__version__}")],
        "status": "active",
        "manufacturer": "dermedge",
        "deviceName": [{"name": "dermedge edge_app", "type": "model-name"}],
        "version": [{"value": dermedge.__version__}],
        "type": {"text": "Software that estimates the risk of a skin lesion, for research"},
        "note": [{"text": DISCLAIMER}],
    }


def _body(referral: Referral) -> Resource:
    side = codes.side(referral.lesion.site)
    found: Resource = {
        "resourceType": "BodyStructure",
        "identifier": [_own(f"{referral.id}.body")],
        "active": True,
        "morphology": _concept(codes.standard("SCT", "SkinLesion")),
        "location": _concept(codes.site(referral.lesion.site), referral.lesion.site),
        "description": f"Tracked as urn:oid:{referral.lesion.tracking_uid}",
        "patient": _reference(referral, "patient"),
    }
    if side is not None:
        found["locationQualifier"] = [_concept(side)]
    return found


def _consent(referral: Referral) -> Resource:
    consent = referral.consent
    assert consent is not None
    words = consent_text(consent.version, consent.language)
    policy = f"dermedge consent to send, version {consent.version}, SHA-256 {consent.sha256}"
    return {
        "resourceType": "Consent",
        "identifier": [_own(f"{referral.id}.consent")],
        "status": "active",
        "scope": _coded("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [_coded("http://loinc.org", "59284-0")],
        "patient": _reference(referral, "patient"),
        "dateTime": _instant(consent.given),
        "policyRule": {"text": policy},
        "sourceAttachment": {
            "contentType": "text/plain; charset=utf-8",
            "language": consent.language,
            "data": base64.b64encode(words.encode()).decode(),
            "title": policy,
        },
    }


def _history(referral: Referral) -> Resource | None:
    parts: list[Resource] = [
        {"code": _concept(codes.question(key), QUESTIONS[key].words), "valueBoolean": yes}
        for key, yes in referral.answers
    ]
    if referral.onset:
        value = _concept(codes.private(f"onset-{referral.onset}"), ONSETS[referral.onset])
        parts.append({"code": _concept(codes.private("onset")), "valueCodeableConcept": value})
    if referral.skin_type:
        value = _concept(codes.private(f"skin-type-{referral.skin_type}"))
        parts.append({"code": _concept(codes.private("skin-type")), "valueCodeableConcept": value})
    age = _concept(codes.standard("DCM", "SubjectAge"))
    if referral.age is not None:
        years = {"value": referral.age, "unit": "years", "system": codes.SYSTEMS["UCUM"]}
        parts.append({"code": age, "valueQuantity": {**years, "code": "a"}})
    if referral.age_group is not None:
        low, _, high = referral.age_group.partition("-")
        ends = {"low": low, "high": high}
        units = {"unit": "years", "system": codes.SYSTEMS["UCUM"], "code": "a"}
        limits = {name: {"value": int(end), **units} for name, end in ends.items() if end}
        parts.append({"code": age, "valueRange": limits})
    if not parts:
        return None
    found: Resource = {
        "resourceType": "Observation",
        "identifier": [_own(f"{referral.id}.history")],
        "status": "final",
        "code": {"text": "History of the lesion and of the person"},
        "subject": _reference(referral, "patient"),
        "focus": [_reference(referral, "body")],
        "effectiveDateTime": _instant(referral.created),
        "component": parts,
    }
    if referral.skin_type in (5, 6):
        found["note"] = [{"text": DARK_SKIN}]
    return found


def _study(referral: Referral, instances: Sequence[Instance]) -> Resource:
    series = [
        {
            "uid": it.series_uid,
            "number": it.series.number,
            "modality": {"system": codes.SYSTEMS["DCM"], "code": it.series.modality},
            "description": it.series.description,
            "numberOfInstances": 1,
            "instance": [
                {
                    "uid": it.uid,
                    "sopClass": {
                        "system": "urn:ietf:rfc:3986",
                        "code": f"urn:oid:{it.sop_class}",
                    },
                    "number": 1,
                }
            ],
        }
        for it in instances
    ]
    modalities = dict.fromkeys(it.series.modality for it in instances)
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid(referral)}"}
    return {
        "resourceType": "ImagingStudy",
        "identifier": [uid],
        "status": "available",
        "modality": [{"system": codes.SYSTEMS["DCM"], "code": it} for it in modalities],
        "subject": _reference(referral, "patient"),
        "started": _instant(referral.created),
        "basedOn": [_reference(referral, "request")],
        "numberOfSeries": len(series),
        "numberOfInstances": len(series),
        "description": "Dermatology referral",
        "series": series,
    }


def _document(referral: Referral, name: str, picture: ReferredPicture, lossy: bool) -> Resource:
    kind = picture.kind.replace("_", "-")
    scale = "" if picture.px_per_mm is None else f", {picture.px_per_mm:.4g} px for a millimetre"
    found = _attached(
        referral,
        name,
        "image/jpeg" if lossy else "image/png",
        encoded(picture, lossy),
        f"{kind}{scale}",
    )
    if picture.taken is not None:
        found["content"][0]["attachment"]["creation"] = _instant(picture.taken)
    return found


def _page(referral: Referral) -> Resource:
    title = "Report: risk estimate for research, not a diagnosis"
    return _attached(referral, "report", "application/pdf", referral.report, title)


def _attached(referral: Referral, name: str, kind: str, data: bytes, title: str) -> Resource:
    return {
        "resourceType": "DocumentReference",
        "identifier": [_own(f"{referral.id}.{name}")],
        "status": "current",
        "type": {"text": title},
        "subject": _reference(referral, "patient"),
        "date": _instant(referral.created),
        "description": title,
        "content": [
            {
                "attachment": {
                    "contentType": kind,
                    "data": base64.b64encode(data).decode(),
                    "size": len(data),
                    "title": title,
                }
            }
        ],
        "context": {"related": [_reference(referral, "request")]},
    }


def _risk(referral: Referral, name: str, number: int, found: Findings, basis: str) -> Resource:
    notes = [f"Picture {number}. {codes.PRIVATE[found.triage].meaning}.", DISCLAIMER]
    if found.remarks:
        notes.append(f"Picture quality: {' '.join(found.remarks)}")
    notes.append(f"Rule: {found.rule}.")
    if found.unfamiliar:
        notes.append(OUT_OF_DISTRIBUTION)
    if referral.skin_type in (5, 6):
        notes.append(DARK_SKIN)
    if found.demonstration:
        notes.append(DEMONSTRATION)
    resource: Resource = {
        "resourceType": "RiskAssessment",
        "identifier": [_own(f"{referral.id}.{name}")],
        "status": "preliminary",
        "method": {"text": f"dermedge {found.software}, {found.bundle}, {found.bundle_sha256}"},
        "subject": _reference(referral, "patient"),
        "occurrenceDateTime": _instant(referral.created),
        "performer": _reference(referral, "device"),
        "basis": [_reference(referral, basis)],
        "note": [{"text": line} for line in notes],
    }
    if found.judged:
        scale = "http://terminology.hl7.org/CodeSystem/risk-probability"
        whole = {
            "outcome": _concept(codes.private("risk")),
            "probabilityDecimal": _percent(found.malignancy),
            "qualitativeRisk": _coded(scale, _RISK[found.triage]),
        }
        classes = [
            {
                "outcome": _concept(codes.private(f"class-{name}"), CLASSES[name]),
                "probabilityDecimal": _percent(value),
            }
            for name, value in found.probabilities
        ]
        resource["prediction"] = [whole, *classes]
    return resource


def _request(referral: Referral, info: Sequence[str]) -> Resource:
    found: Resource = {
        "resourceType": "ServiceRequest",
        "identifier": [_own(service_request(referral).value)],
        "status": "active",
        "intent": "order",
        "priority": referral.priority,
        "code": {"text": "Teledermatology: opinion on a skin lesion"},
        "subject": _reference(referral, "patient"),
        "authoredOn": _instant(referral.created),
        "requester": _reference(referral, "device"),
        "reasonCode": [_concept(codes.standard("SCT", "SkinLesion"))],
        "supportingInfo": [_reference(referral, name) for name in info],
        "bodySite": [_concept(codes.site(referral.lesion.site), referral.lesion.site)],
    }
    if referral.question.strip():
        found["note"] = [{"text": referral.question}]
    return found


def _task(referral: Referral) -> Resource:
    return {
        "resourceType": "Task",
        "identifier": [_own(task(referral).value)],
        "status": "requested",
        "intent": "order",
        "priority": referral.priority,
        "code": _coded("http://hl7.org/fhir/CodeSystem/task-code", "fulfill"),
        "description": "Answer by a DiagnosticReport that is based on the ServiceRequest.",
        "focus": _reference(referral, "request"),
        "for": _reference(referral, "patient"),
        "authoredOn": _instant(referral.created),
        "requester": _reference(referral, "device"),
    }


# ---------------------------------------------------------------------------- pieces


def _entry(referral: Referral, name: str, resource: Resource) -> Resource:
    first = resource["identifier"][0]
    # Bare, these would ask for other numbers, too (search.html#escaping).
    system, value = (re.sub(r"([\\$,|])", r"\\\1", first[it]) for it in ("system", "value"))
    query = f"identifier={quote(system, safe=':/.')}|{quote(value, safe=':.-')}"
    kind = resource["resourceType"]
    return {
        "fullUrl": urn(referral.id, name),
        "resource": resource,
        "request": {"method": "POST", "url": kind, "ifNoneExist": query},
    }


def _own(value: str) -> Resource:
    return {"system": SYSTEM, "value": value}


def _reference(referral: Referral, name: str) -> Resource:
    return {"reference": urn(referral.id, name)}


def _concept(code: Code, words: str = "") -> Resource:
    coding = {
        "system": codes.SYSTEMS[code.scheme_designator],
        "code": code.value,
        "display": code.meaning,
    }
    return {"coding": [coding], "text": words or code.meaning}


def _coded(system: str, code: str) -> Resource:
    return {"coding": [{"system": system, "code": code}]}


def _percent(value: float) -> float:
    """R4 has probabilityDecimal as a percentage, at most 100."""
    return round(100 * float(value), 4)


def _instant(when: datetime) -> str:
    return when.isoformat(timespec="seconds")


def _json(value: Resource) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
