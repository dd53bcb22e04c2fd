"""Which pictures of a store may be asked about, what the model says of each, and in which order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from dermedge.acquisition import ask_first
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.image.read import read_image
from edge_app.cases import metadata_of
from edge_app.store import clock
from edge_app.store.damage import LeaveOut, stop, without_damage
from edge_app.store.labels import Polygon
from edge_app.store.records import Capture, Lesion, StoreError
from edge_app.store.store import Store

AT_ONCE = 10  # questions that are chosen together: doubt first, no near copies


@dataclass(frozen=True, eq=False)
class Question:
    """A picture to ask about, and what the model proposes; outlines in px of the whole picture."""

    capture: str
    size: tuple[int, int]  # width, height, px
    outline: tuple[Polygon, ...]
    probabilities: dict[str, float]
    judged: bool  # False: the picture was refused, and its probabilities say nothing of it
    embedding: np.ndarray  # float32 (E,); of no length where the bundle gives none


def allowed(store: Store, leave_out: LeaveOut = stop) -> Iterator[tuple[str, Capture]]:
    """(person, capture) of those who allowed the use of their pictures for training."""
    for person in store.people(leave_out=leave_out):
        lesions: list[Lesion] = []
        with without_damage(f"person {person.id}", leave_out):
            if store.labels.permission(person.id) is not None:
                lesions = store.lesions(person.id, leave_out)
        for lesion in lesions:
            for capture in store.captures(lesion.id, leave_out):
                yield person.id, capture


def named(person: str, capture: Capture) -> str:
    """A picture, as somebody finds it in the app."""
    when = clock.local_minute(capture.taken) if capture.dated else "a date not known"
    return f"picture {capture.id} of {when}, person {person}"


def is_allowed(store: Store, capture: str) -> bool:
    """Whether a picture is still there, and allowed."""
    try:
        person = store.lesion(store.capture(capture).lesion).person
    except StoreError as error:
        if error.code != "gone":
            raise
        return False
    return store.labels.permission(person) is not None


def questions(
    store: Store,
    analyzer: Analyzer,
    progress: Callable[[int], object] = lambda _n: None,
    leave_out: LeaveOut = stop,
) -> list[Question]:
    """Allowed pictures without a label, those first that bring the most: `ask_first` says which.

    Each is analysed again, with the age, sex and site that the app would state, by the analyzer's
    bundle: what the store holds of it may be of another.
    """
    waiting, known = [], []
    for number, (person, capture) in enumerate(allowed(store, leave_out), 1):
        with without_damage(named(person, capture), leave_out):
            label = store.labels.of(capture.id)
            picture, known_then = store.picture(capture.id), metadata_of(store, capture)
            question = _question(capture.id, analyzer.analyze(picture, metadata=known_then))
            if label is None:
                waiting.append(question)
            else:
                known.append(question.embedding)
        progress(number)
    if not waiting:
        return []
    names = sorted(waiting[0].probabilities)
    probabilities = np.array([[one.probabilities[name] for name in names] for one in waiting])
    features = np.array([one.embedding for one in waiting])
    labelled = np.array(known) if known else np.zeros((0, features.shape[1]))
    ordered: list[int] = []
    left = np.arange(len(waiting))
    while len(left):
        known_now = np.concatenate([labelled, features[ordered]])
        chosen = ask_first(probabilities[left], features[left], known_now, AT_ONCE)
        # Two who label at once would else be at the same picture, and the slower one's answer lost.
        ordered += random.sample(left[chosen].tolist(), len(chosen))
        left = np.delete(left, chosen)
    return [waiting[at] for at in ordered]


def _question(capture: str, found: Analysis) -> Question:
    # What was outlined on a picture without a lesion is not one.
    polygons = () if found.is_outlier else found.lesion.polygons
    outline = tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in polygons)
    embedding = np.zeros(0, np.float32) if found.embedding is None else found.embedding.ravel()
    size = found.width, found.height
    judged = found.triage != "retake"
    return Question(capture, size, outline, dict(found.probabilities), judged, embedding)


def shown(picture: bytes) -> bytes:
    """A picture of the store as an upright JPEG without metadata, for the page and the export."""
    pixels = read_image(picture).pixels
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
