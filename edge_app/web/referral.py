"""A referral that the page saves as a file: what it asks for, and the value that is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dermedge import UserError
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.presentation.body_map import REGIONS
from edge_app.referral import consent, fhir, review, uids
from edge_app.referral.form import (
    KINDS,
    PRIORITIES,
    Findings,
    Referral,
    ReferredLesion,
    ReferredPicture,
)
from edge_app.store import clock
from edge_app.store.records import UNKNOWN, StoreError
from edge_app.web.case import Time

KIND = N_("Say of each picture what it shows.")
SITE = N_("Choose where the spot is.")


def form() -> dict[str, Any]:
    """What there is to choose, as lists of key and words, and the consent that is asked for."""
    name = language.current()
    return {
        "sites": [[region, language.capital(_(region))] for region in REGIONS],
        "kinds": [[kind, _(words)] for kind, words in KINDS.items()],
        "priorities": [[key, _(words)] for key, words in PRIORITIES.items()],
        "consent": {
            "version": consent.CURRENT,
            "language": name,
            "text": consent.text(consent.CURRENT, name),
        },
    }


def referral(
    wanted: Mapping[str, Any],
    analyses: Sequence[Mapping],
    times: Sequence[Time],
    images: Sequence[bytes] = (),
) -> Referral:
    """A pseudonymous referral of the pictures at hand.

    Parameters
    ----------
    wanted : "id", a random UUID; "now", ISO 8601 in UTC; "site", "priority" and "question"; of
        each picture "kinds"; "consent", with "version", "language" and "given", or None;
        "private", words that must not be in the question.
    images : JPEG of each; none: as many black pixels stand for them, to be shown what leaves.

    Raises
    ------
    UserError : something is missing without which nothing may be sent.
    """
    if wrong := clock.words(wanted["now"]):
        raise StoreError(wrong, code="clock")
    if not all(wanted["kinds"]):
        raise UserError(KIND, code="referral-kind")
    if not wanted["site"]:
        raise UserError(SITE, code="referral-site")
    agreed = wanted["consent"]
    made = Referral(
        id=wanted["id"],
        created=clock.moment(wanted["now"]),
        # Of this referral alone: nothing of the person is known from one to the next.
        pseudonym=uids.pseudonym(wanted["id"], "page"),
        lesion=ReferredLesion(wanted["site"], uids.tracking_uid(wanted["id"])),
        pictures=tuple(_pictures(wanted, analyses, times, images)),
        consent=agreed
        and consent.Consent.to(
            agreed["version"], agreed["language"], clock.moment(agreed["given"])
        ),
        priority=wanted["priority"],
        question=wanted["question"].strip(),
    )
    review.require(made, wanted["private"])
    return made


def rows(
    wanted: Mapping[str, Any], analyses: Sequence[Mapping], times: Sequence[Time]
) -> list[list[str]]:
    """All that leaves, as label and value; errors as of `referral`."""
    return [[row.label, row.value] for row in review.preview(referral(wanted, analyses, times))]


def transaction(
    wanted: Mapping[str, Any],
    analyses: Sequence[Mapping],
    times: Sequence[Time],
    images: Sequence[bytes],
) -> bytes:
    """The FHIR R4 transaction as JSON, checked; errors as of `referral`."""
    return fhir.transaction(referral(wanted, analyses, times, images), lossy=True)[1]


def _pictures(
    wanted: Mapping[str, Any],
    analyses: Sequence[Mapping],
    times: Sequence[Time],
    images: Sequence[bytes],
):
    for number, (analysis, time) in enumerate(zip(analyses, times, strict=True)):
        width, height = analysis["size"]
        black = np.broadcast_to(np.uint8(0), (height, width, 3))
        yield ReferredPicture(
            id=f"{wanted['id']}.{number}",
            kind=wanted["kinds"][number],
            image=images[number] if images else black,
            px_per_mm=(analysis["scale"] or {}).get("px_per_mm"),
            taken=None if time.dating == UNKNOWN else clock.moment(time.taken),
            findings=Findings.of(analysis),
        )
