"""Referrals for tests: drawn pictures, every field set, and what must never leave."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from functools import cache

import cv2
import numpy as np

from edge_app.referral.consent import Consent
from edge_app.referral.form import (
    Dermoscope,
    Findings,
    Referral,
    ReferredLesion,
    ReferredPicture,
)
from edge_app.referral.history import QUESTIONS
from edge_app.referral.uids import pseudonym, tracking_uid

WHEN = datetime(2026, 11, 28, 14, 5, 6, tzinfo=timezone(timedelta(hours=1)))
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


@cache
def drawn(seed: int = 1, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Noise with a dark spot, uint8 (h, w, 3)."""
    random = np.random.default_rng(seed)
    pixels = random.integers(120, 255, (*size, 3), dtype=np.uint8)
    cv2.ellipse(pixels, (size[1] // 2, size[0] // 2), (30, 20), 20, 0, 360, (60, 40, 30), -1)
    pixels.flags.writeable = False
    return pixels


def mask(size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """bool (h, w), two parts."""
    drawn_mask = np.zeros(size, np.uint8)
    cv2.ellipse(drawn_mask, (size[1] // 2, size[0] // 2), (30, 20), 20, 0, 360, 1, -1)
    cv2.circle(drawn_mask, (12, 14), 7, 1, -1)
    return drawn_mask > 0


def outlines(inside: np.ndarray) -> tuple:
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return tuple(tuple((float(x), float(y)) for x, y in it[:, 0]) for it in contours)


@cache
def _outlines() -> tuple:
    return outlines(mask())


def findings(**changes) -> Findings:
    fields = {
        "outlines": _outlines(),
        "triage": "see a doctor",
        "rule": "malignancy 0.372 >= see a doctor threshold 0.300",
        "malignancy": 0.372,
        "probabilities": (("nv", 0.628), ("mel", 0.372)),
        "area_px": float(mask().sum()),
        "asymmetry": 1,
        "border": 4,
        "color": 3,
        "colors": ("light brown", "dark brown", "blue-gray"),
        "diameter_mm": 6.25,
        "reasons": ("hair",),
        "unfamiliar": False,
        "demonstration": True,
        "bundle": "demo",
        "bundle_sha256": "ab" * 32,
        "software": "0.2.0",
    }
    return Findings(**{**fields, **changes})


def picture(kind: str = "dermoscopic", seed: int = 1, **changes) -> ReferredPicture:
    fields = {
        "id": str(uuid.UUID(int=1000 + seed)),
        "kind": kind,
        "image": drawn(seed),
        "px_per_mm": 17.3,
        "taken": WHEN - timedelta(minutes=seed),
        "recognizable": False,
        "dermoscope": Dermoscope(True, True, "WATER") if kind == "dermoscopic" else None,
        "findings": findings(),
    }
    return ReferredPicture(**{**fields, **changes})


def referral(number: int = 1, **changes) -> Referral:
    fields = {
        "id": str(uuid.UUID(int=number * 7919)),
        "created": WHEN,
        "pseudonym": pseudonym(f"person {number}", "clinic"),
        "lesion": ReferredLesion("left upper back", tracking_uid(f"lesion {number}")),
        "pictures": (
            picture("overview", 1, findings=None, px_per_mm=None),
            picture("close_up", 2),
            picture("dermoscopic", 3),
        ),
        "consent": Consent.to("2026-11", "en", WHEN - timedelta(minutes=1)),
        "birth_year": 1971,
        "sex": "female",
        "skin_type": 2,
        "onset": "months",
        "answers": tuple((key, n % 2 == 0) for n, key in enumerate(QUESTIONS)),
        "priority": "urgent",
        "question": "Is this ü a melanoma? Größe?\nSecond line.",
        "report": PDF,
    }
    return Referral(**{**fields, **changes})
