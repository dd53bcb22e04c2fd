"""What is done with the cases of an open store: their pictures, risk maps, files in and out.

Each function decodes or encrypts and may take a moment: call it beside the screen, within
`Session.on_behalf_of`. They raise UserError, of which StoreError is a kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from dermedge import UserError
from dermedge.files import write_atomic
from dermedge.image.read import read_image
from dermedge.metadata import understood
from edge_app import browser
from edge_app.browser import check_writable, free_path, shrunk
from edge_app.capture.processing import Processor
from edge_app.capture.shots import Explained
from edge_app.follow_up.history import Comparison, compare
from edge_app.follow_up.people import age
from edge_app.presentation.body_map import region
from edge_app.store import clock
from edge_app.store.damage import LeaveOut, stop
from edge_app.store.records import BY_CLOCK, GIVEN
from edge_app.store.store import Capture, Lesion, Person, Store

FILE_ENDING = ".dermcases"  # of what `export` writes
SHOWN_SIDE = 1280  # px, long side of a stored picture as the screens show it
SAME = 1e-3  # of a probability, up to which two analyses of a picture are one


def picture(store: Store, capture: Capture, side: int = SHOWN_SIDE) -> np.ndarray:
    """A stored picture, uint8 (h, w, 3) RGB, its long side at most `side` px."""
    return shrunk(read_image(store.picture(capture.id)).pixels, side)


def compared(
    store: Store, first: Capture, second: Capture
) -> tuple[np.ndarray, np.ndarray, Comparison]:
    """Both pictures and what changed; UserError where one of them shows no lesion."""
    ours, theirs = picture(store, first), picture(store, second)
    return ours, theirs, compare(first, ours, second, theirs)


def taken(path: Path) -> str:
    """When a picture file says that it was taken, as a store keeps it; empty where that is not
    known. Any thread.
    """
    return clock.of_camera(browser.photographed(path))


def metadata(person: Person, lesion: Lesion, day: date, by_clock: bool = True) -> dict[str, object]:
    """Of a person and lesion on a day, as `Analyzer.analyze` takes it. Any thread.

    `by_clock` : as for `follow_up.people.age`.
    """
    known: dict[str, object] = {}
    if (years := age(person, day, by_clock)) is not None:
        known["age"] = years
    if person.sex:
        known["sex"] = person.sex
    known["site"] = region(lesion.view, lesion.x, lesion.y) or lesion.title
    return understood(known)  # a title is in words of one's own


def metadata_of(store: Store, capture: Capture) -> dict[str, object]:
    """Of a stored picture, as `metadata`: of the day on which it was taken."""
    lesion = store.lesion(capture.lesion)
    day = clock.moment(capture.taken).astimezone().date()
    return metadata(store.person(lesion.person), lesion, day, capture.dating != GIVEN)


def _known(store: Store, capture: Capture) -> Iterator[dict[str, object]]:
    """What may have been known of a stored picture when it was analysed, which is not stored."""
    yield metadata_of(store, capture)
    yield {}  # it was of nobody
    for entry in store.audit():  # it was of the day on which it was added, and corrected since
        if (entry.what, entry.which) == ("add capture", capture.id):
            yield metadata_of(store, replace(capture, taken=entry.when, dating=BY_CLOCK))


def explained(store: Store, capture: Capture, processor: Processor) -> Explained:
    """A stored capture, to draw the risk map of: its picture is analysed once more.

    Raises UserError where that does not give the result that is stored: another model, or
    other data of the person, would explain another result than the one that is shown.
    """
    content = store.picture(capture.id)
    reference = (capture.analysis["scale"] or {}).get("reference")
    if reference == "given":  # a scale, nothing in the picture
        reference = None
    for known in _known(store, capture):
        explained = processor.explain(content, known, reference)
        if _same(explained.analysis.to_json(), capture.analysis):
            return explained
    raise UserError(
        "The model and the person's data are no longer those of this result: there is no risk "
        "map of it. Take a new picture.",
        code="not_reproduced",
    )


def export(
    store: Store, folder: Path, passphrase: str, only: Person | None = None,
    leave_out: LeaveOut = stop,
) -> Path:  # fmt: skip
    """All cases, or those of one person, as one encrypted file in `folder`."""
    check_writable(folder)
    # No name of a person: whoever finds the file must not learn it.
    path = free_path(folder, f"cases-{date.today()}", FILE_ENDING)
    store.export(path, passphrase, only.id if only else None, leave_out)
    return path


def write_card(folder: Path, paper: str) -> Path:
    """The printable size card, on one of dermedge.lesion.scale.PAPERS, in the app's language."""
    from edge_app.documents.size_card import size_card

    check_writable(folder)
    path = free_path(folder, f"size-card-{paper}", ".pdf")
    write_atomic(path, size_card(paper))
    return path


def write_report(
    store: Store, folder: Path, capture: Capture, earlier: Capture | None, fields: Sequence[str]
) -> Path:
    """The one-page PDF of a stored capture; `fields` as `write_case` takes them."""
    from edge_app.documents import pdf

    check_writable(folder)
    # Whose it is, its own rows say: somebody else may be at work by now.
    lesion = store.lesion(capture.lesion)
    person = store.person(lesion.person)
    day = clock.local_day(capture.taken) if capture.dated else "undated"
    path = free_path(folder, f"case-{day}", ".pdf")

    def printed(one: Capture) -> pdf.Shot:
        return pdf.Shot(one, picture(store, one, side=4096))

    shot, before = printed(capture), printed(earlier) if earlier else None
    with store.act("report", capture.id):
        pdf.write_case(path, shot, before, person, lesion, fields)
    return path


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two analyses say the same, but for the last digits that a processor may give."""
    if (first["triage"], set(first["probabilities"])) != (
        second["triage"],
        set(second["probabilities"]),
    ):
        return False
    apart = [abs(value - second["probabilities"][n]) for n, value in first["probabilities"].items()]
    return max(apart) <= SAME
