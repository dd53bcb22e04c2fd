"""One person's way through the questions, whatever serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dermedge import DISCLAIMER
from dermedge.taxonomy import CLASSES, TITLES
from edge_app.labelling.queue import Question, is_allowed, shown
from edge_app.store.labels import CONFIRMED, Label, Polygon
from edge_app.store.records import StoreError
from edge_app.store.store import Store


class Sitting:
    """The questions, and where its person is. Not thread-safe: the server holds a lock."""

    def __init__(self, store: Store, questions: Sequence[Question], by: str, role: str, model: str):
        self._store, self._questions = store, list(questions)
        self._by, self._role, self._model = by, role, model
        self._answers: list[Label] = []  # as they are kept, one for each question answered
        self._at = 0

    def state(self) -> dict[str, Any]:
        """What the page shows now; "question" is None at the end."""
        question = self._next()
        found: dict[str, Any] = {
            "done": self._at,
            "count": len(self._questions),
            "by": self._by,
            "role": self._role,
            "disclaimer": DISCLAIMER,
            "classes": {name: TITLES[name] for name in CLASSES},
            "question": None,
        }
        if question is not None:
            found["question"] = {
                "id": question.capture,
                "size": question.size,
                "outline": question.outline,
                "probabilities": question.probabilities if question.judged else {},
                "judged": question.judged,
            }
        return found

    def picture(self, capture: str) -> bytes:
        """JPEG of the picture that is asked about; StoreError for any other."""
        question = self._now(capture)
        return shown(self._store.picture(question.capture))

    def answer(self, capture: str, verdict: str, diagnosis: str, outline: Any) -> None:
        """Save an answer, and go on. StoreError where it makes no sense, or is to another."""
        question = self._now(capture)
        polygons = _polygons(outline, question.size) if verdict == CONFIRMED else ()
        label = Label(verdict, diagnosis, polygons, self._by, self._role, self._model)
        self._answers.append(self._store.labels.add(question.capture, label))
        self._at += 1

    def undo(self) -> None:
        """Take the last answer back, and ask again."""
        if not self._at:
            raise StoreError("there is no answer to take back", code="invalid")
        self._store.labels.undo(self._questions[self._at - 1].capture, self._answers[-1])
        self._answers.pop()
        self._at -= 1

    def _next(self) -> Question | None:
        """The one that is asked about now.

        Meanwhile its picture may have been deleted, its use forbidden, or somebody else may have
        labelled it: it is asked no more.
        """
        while self._at < len(self._questions):
            capture = self._questions[self._at].capture
            if is_allowed(self._store, capture) and self._store.labels.of(capture) is None:
                return self._questions[self._at]
            del self._questions[self._at]
        return None

    def _now(self, capture: str) -> Question:
        question = self._next()
        if question is None or question.capture != capture:
            # The page goes on to the one that is, if there is any.
            raise StoreError(
                "this answer was not saved: its picture is not asked about any more", code="invalid"
            )
        return question


def _polygons(outline: Any, size: tuple[int, int]) -> tuple[Polygon, ...]:
    try:
        found = tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in outline)
    except (TypeError, ValueError, OverflowError):
        raise StoreError("an outline is no list of points", code="invalid") from None
    inside = all(0 <= x < size[0] and 0 <= y < size[1] for polygon in found for x, y in polygon)
    if not inside:
        raise StoreError("an outline lies off the picture", code="invalid")
    return found
