"""Our own check of a transaction before it is sent: of R4's rules those that we could break.

General validators let a wrong status through (of four only one caught it), and carry 40 MB.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Elements that R4 or we require; "a|b": one of them.
REQUIRED = {
    "Patient": ("identifier", "gender"),
    "Device": ("identifier", "deviceName"),
    "BodyStructure": ("identifier", "patient", "location"),
    "Consent": (
        "identifier",
        "status",
        "scope",
        "category",
        "patient",
        "dateTime",
        "policy|policyRule",
    ),
    "Observation": ("identifier", "status", "code", "subject", "effectiveDateTime", "component"),
    "ImagingStudy": ("identifier", "status", "subject", "series"),
    "DocumentReference": ("identifier", "status", "subject", "content"),
    "RiskAssessment": ("identifier", "status", "subject", "performer", "note"),
    "ServiceRequest": ("identifier", "status", "intent", "priority", "subject", "authoredOn"),
    "Task": ("identifier", "status", "intent", "priority", "focus", "for", "authoredOn"),
}
ONCE = ("Patient", "ServiceRequest", "Task", "Consent")  # in each transaction
_PRIORITY = {"routine", "urgent", "asap", "stat"}
_OBSERVED = {
    "registered",
    "preliminary",
    "final",
    "amended",
    "corrected",
    "cancelled",
    "entered-in-error",
    "unknown",
}
_INTENT = {
    "proposal",
    "plan",
    "directive",
    "order",
    "original-order",
    "reflex-order",
    "filler-order",
    "instance-order",
    "option",
}
# The value sets that R4 binds as required.
CODES = {
    ("Patient", "gender"): {"male", "female", "other", "unknown"},
    ("Device", "status"): {"active", "inactive", "entered-in-error", "unknown"},
    ("Consent", "status"): {
        "draft",
        "proposed",
        "active",
        "rejected",
        "inactive",
        "entered-in-error",
    },
    ("Observation", "status"): _OBSERVED,
    ("ImagingStudy", "status"): {
        "registered",
        "available",
        "cancelled",
        "entered-in-error",
        "unknown",
    },
    ("DocumentReference", "status"): {"current", "superseded", "entered-in-error"},
    ("RiskAssessment", "status"): _OBSERVED,
    ("ServiceRequest", "status"): {
        "draft",
        "active",
        "on-hold",
        "revoked",
        "completed",
        "entered-in-error",
        "unknown",
    },
    ("ServiceRequest", "intent"): _INTENT,
    ("ServiceRequest", "priority"): _PRIORITY,
    ("Task", "status"): {
        "draft",
        "requested",
        "received",
        "accepted",
        "rejected",
        "ready",
        "cancelled",
        "in-progress",
        "on-hold",
        "failed",
        "completed",
        "entered-in-error",
    },
    ("Task", "intent"): _INTENT - {"directive"} | {"unknown"},
    ("Task", "priority"): _PRIORITY,
}
_PEOPLE = {"subject", "patient", "for"}
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)")


def faults(bundle: Mapping[str, Any]) -> list[str]:
    """What is wrong with a transaction, a line each; empty where nothing is."""
    found: list[str] = []
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
        found.append("not a transaction")
    if not (bundle.get("identifier") or {}).get("value"):
        found.append("no identifier")
    entries = bundle.get("entry") or []
    urls = {entry.get("fullUrl"): entry.get("resource") or {} for entry in entries}
    if len(urls) != len(entries):
        found.append("two entries have one fullUrl")
    kinds = [resource.get("resourceType") for resource in urls.values()]
    found += [f"{kinds.count(kind)} of {kind}" for kind in ONCE if kinds.count(kind) != 1]
    for entry in entries:
        found += _entry(entry, urls)
    return found


def _entry(entry: Mapping[str, Any], urls: Mapping[Any, Any]) -> Iterator[str]:
    resource, request = entry.get("resource") or {}, entry.get("request") or {}
    kind = resource.get("resourceType")
    if kind not in REQUIRED:
        yield f"{kind} is not sent"
        return
    for names in REQUIRED[kind]:
        if not any(resource.get(name) not in (None, "", [], {}) for name in names.split("|")):
            yield f"{kind} without {names}"
    for (of, name), allowed in CODES.items():
        if of == kind and name in resource and resource[name] not in allowed:
            yield f"{kind}.{name} is {resource[name]!r}"
    if request.get("method") != "POST" or request.get("url") != kind:
        yield f"{kind}: not created by POST"
    identifiers = resource.get("identifier") or [{}]
    if not str(request.get("ifNoneExist") or "").startswith("identifier="):
        yield f"{kind}: would be created twice"
    for identifier in identifiers:
        if not identifier.get("system") or not identifier.get("value"):
            yield f"{kind}: an identifier without system or value"
        elif identifier["value"] in urls:
            yield f"{kind}: an identifier that equals a fullUrl"
    for name in _PEOPLE & set(resource):
        target = urls.get((resource[name] or {}).get("reference")) or {}
        if target.get("resourceType") != "Patient":
            yield f"{kind}.{name} is not the person of this transaction"
    yield from _values(kind, resource, urls)


def _values(path: str, value: Any, urls: Mapping[Any, Any]) -> Iterator[str]:
    """Of everything within: nothing empty, no reference that leads nowhere, codes with a system."""
    if isinstance(value, Mapping):
        if not value:
            yield f"{path} is empty"
        if "reference" in value and value["reference"] not in urls:
            yield f"{path} refers to what is not sent"
        for name, inner in value.items():
            yield from _values(f"{path}.{name}", inner, urls)
            yield from _element(f"{path}.{name}", name, inner)
    elif isinstance(value, list):
        if not value:
            yield f"{path} is empty"
        for inner in value:
            yield from _values(path, inner, urls)
    elif value is None or value == "":
        yield f"{path} is empty"


def _element(path: str, name: str, value: Any) -> Iterator[str]:
    if name == "coding":
        for coding in value:
            code = coding.get("code")
            if not coding.get("system") or not re.fullmatch(r"\S+( \S+)*", str(code or "")):
                yield f"{path}: a code without system or value"
    elif name == "probabilityDecimal" and not 0 <= value <= 100:
        yield f"{path} is {value}"
    elif name in ("authoredOn", "dateTime", "effectiveDateTime", "occurrenceDateTime", "started"):
        if not _INSTANT.fullmatch(str(value)):
            yield f"{path} is {value!r}"
    elif name == "data":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            yield f"{path} is not base64"
