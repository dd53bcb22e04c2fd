"""What is in the rows of a case that the page saves or keeps as the app's own sealed file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_app.i18n.language import N_
from edge_app.store import clock, records, schema
from edge_app.store.passphrase import strength
from edge_app.store.records import GIVEN, Brief, Capture, Lesion, Person, StoreError, Summary

TITLE = N_("Spot")
PLACE = N_("Photographed with the page: where on the body it is was not asked.")
NAME = N_("a person needs a name or a code")
OTHER_NETWORKS = N_(
    "the photos of this case were judged together by other networks than those that are here now: "
    "save the file and open it in the app"
)


class Time(NamedTuple):
    """Of a picture, as `Capture` has them."""

    taken: str
    dating: str


def of_one_day(analyses: Sequence[dict], times: Sequence[Time]) -> list[dict]:
    """Those of the last one's day: an old photo has no part in what others say.

    Those that no file dated are of one day, also where it ended meanwhile.
    """
    stated = [one.taken if one.dating == GIVEN else "" for one in times]
    here = next((one.taken for one in reversed(times) if one.dating != GIVEN), "")
    counts = clock.of_last_day(stated, here)
    return [one for one, used in zip(analyses, counts, strict=True) if used]


def check(name: str, passphrase: str, now: str) -> None:
    """Raises StoreError for what the app would refuse."""
    if not name.strip():
        raise StoreError(NAME, code="invalid")
    if fault := strength(passphrase).fault:
        raise StoreError(fault, code="passphrase")
    if wrong := clock.words(now):
        raise StoreError(wrong, code="clock")


def rows(
    name: str, analyses: Sequence[dict], times: Sequence[Time], origin: str, now: str, title: str,
    place: str,
) -> dict[str, Any]:  # fmt: skip
    """JSON-ready: "form" of the file, "now", and "rows" in the order in which they are added.

    A row has its "table", its "ids" (its own, and that of the row it belongs to), and "record" and
    "summary" as JSON. `times` : of each analysis. `origin` : of the file's key.
    """
    person = Person(_id(), name.strip(), created=now)
    # Off the body: nobody said where the spot is, and the middle of the map is a place.
    lesion = Lesion(_id(), person.id, title, x=0.0, y=0.0, notes=place, created=now)
    captures = [
        Capture(
            _id(), lesion.id, time.taken, analysis, tuple(analysis["size"]), _scale(analysis),
            dating=time.dating, origin=origin, sequence=number, version=schema.analysis_version(),
        )
        for number, (analysis, time) in enumerate(zip(analyses, times, strict=True), 4)
    ]  # fmt: skip
    summary = json.dumps(Summary.packed([Brief.of(capture) for capture in captures]))
    made = [_row("person", person), _row("lesion", lesion, person.id, summary)]
    made += [_row("capture", capture, lesion.id) for capture in captures]
    return {"form": form(), "now": now, "rows": made}


def form() -> dict[str, Any]:
    """Of the sealed file: "statements" that make it, "application", "version" and "purpose"."""
    return json.loads(Path(__file__).with_name("store.json").read_text(encoding="utf-8"))


def captures(kept: Sequence[Sequence], bundle: str) -> list[Capture]:
    """Those of a kept case, as they were judged; `kept` holds id, lesion and record of each.

    Raises StoreError where what was said of them cannot be said again: their analyses are of
    another version, or several were put together with another bundle than that of this SHA-256.
    """
    found = [records.unpacked(Capture, *one) for one in kept]
    # By date, a photo of today would be the last, and the result, where an old one was judged last.
    found.sort(key=lambda capture: capture.sequence)
    others = {capture.analysis["versions"]["bundle_sha256"] for capture in found} - {bundle}
    if others and len(found) > 1:
        raise StoreError(OTHER_NETWORKS, code="other-networks")
    return found


def _row(table: str, item: Any, above: str = "", summary: str = "") -> dict[str, Any]:
    record = json.dumps(records.packed(item))
    ids = [item.id, above] if above else [item.id]
    return {"table": table, "ids": ids, "record": record, "summary": summary}


def _id() -> str:
    return os.urandom(16).hex()


def _scale(analysis: dict) -> float | None:
    return (analysis["scale"] or {}).get("px_per_mm")
