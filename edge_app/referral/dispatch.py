"""From a referral that a nurse confirmed to parcels in the outbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timezone

from dermedge import UserError
from edge_app.i18n.language import N_
from edge_app.referral.answers import Sent
from edge_app.referral.consent import Consent
from edge_app.referral.form import Referral
from edge_app.referral.outbox import Outbox
from edge_app.referral.parcels import Options, build
from edge_app.referral.uids import study_uid
from edge_app.store.referrals import Destination, StoredReferral
from edge_app.store.store import Store

OTHER_WAY = N_("{receiver} has an address for neither DICOM nor FHIR: enter one")


def _kept(consent: Consent) -> str:
    """To which text, in which language and when (ISO 8601, UTC)."""
    given = consent.given.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{consent.version} {consent.language} {given}"


def options(destination: Destination, private: Sequence[str] = ()) -> Options:
    """What a destination takes; `private` as `Options` has it. UserError without an address."""
    if destination.dicom is None and destination.fhir is None:
        raise UserError(OTHER_WAY, code="no-way", receiver=destination.name)
    return Options(
        dicom=destination.dicom is not None,
        fhir=destination.fhir is not None,
        lossy=destination.lossy,
        private=tuple(private),
    )


def dispatch(
    store: Store, referral: Referral, lesion: str, destination: Destination, chosen: Options
) -> StoredReferral:
    """Build all that leaves, once, and freeze it: when it returns, it is on disk and will be sent.

    Takes about a second for a picture of 12 megapixels. Any thread. A second call with the same
    referral queues nothing twice.

    Parameters
    ----------
    referral : its pictures carry the ids that they have in the store; its own id is 32 hexadecimal
        digits.
    lesion : the id of the lesion in the store.

    Raises
    ------
    UserError : something is missing without which nothing may be sent; StoreError where it could
        not be kept. Nothing was queued then.
    """
    parcels = build(referral, chosen)
    consent = referral.consent
    sent = Sent.of(referral, uids=[one.uid for one in parcels])
    stored = StoredReferral(
        id=referral.id,
        lesion=lesion,
        destination=destination.id,
        receiver=destination.name,
        study_uid=study_uid(referral),
        patient_id=referral.patient_id,
        captures=tuple(picture.id for picture in referral.pictures),
        consent="" if consent is None else _kept(consent),
        form={
            "onset": referral.onset,
            "answers": [list(pair) for pair in referral.answers],
            "priority": referral.priority,
            "question": referral.question,
            "tracking": referral.lesion.tracking_uid,
            "identifiers": [[one.system, one.value] for one in referral.identifiers],
        },
        sent=json.loads(json.dumps(sent.to_json())),  # lists, as it comes back
    )
    return Outbox(store).queue(stored, parcels)
