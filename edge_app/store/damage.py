"""Going on where one record is damaged: it is left out by its name, and never in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dermedge import UserError
from dermedge.image.header import ImageError
from edge_app.i18n.language import N_, Message
from edge_app.store.records import StoreError

LeaveOut = Callable[[str, UserError], object]  # gets what is damaged, and how
DAMAGED = frozenset({"damaged", "record"})  # codes of a record that cannot be read

PARTS = {
    "person": N_("person"),
    "lesion": N_("lesion"),
    "capture": N_("capture"),
    "referral": N_("referral"),
    "parcel": N_("parcel"),
    "answer": N_("answer"),
    "destination": N_("destination"),
}
ONE, OF_ANOTHER = N_("{part} {id}"), N_("{part} {id} of {above} {parent}")
LEFT_OUT = N_("{what} is left out: {fault}")


def stop(_what: str, error: UserError) -> None:
    """Leave nothing out."""
    raise error


def pass_over(_what: str, _error: UserError) -> None:
    """Where the damage takes nothing away, or somebody else names it."""


@contextmanager
def without_damage(what: str, leave_out: LeaveOut) -> Iterator[None]:
    """What is damaged is left out, by its name; the rest goes on."""
    try:
        yield
    except (StoreError, ImageError) as error:
        if isinstance(error, StoreError) and error.code not in (*DAMAGED, "gone"):
            raise
        if error.code != "gone":  # deleted meanwhile, as in the app
            leave_out(what, error)


def row(table: str, id: str, above: str | None = None, parent: str | None = None) -> Message:
    """The name of a row: what of a damaged one is still known."""
    if above is None:
        return Message(ONE, part=Message(PARTS[table]), id=id)
    upper = Message(PARTS[above])
    return Message(OF_ANOTHER, part=Message(PARTS[table]), id=id, above=upper, parent=parent)


def id_of(table: str, what: str) -> str:
    """The id of a damaged row that belongs to no other, by its name; empty for what is none."""
    if not isinstance(what, Message) or what.message != ONE or what.values["part"] != PARTS[table]:
        return ""
    return str(what.values["id"])


class LeftOut:
    """What was left out, each once; to be used as a `LeaveOut`."""

    def __init__(self) -> None:
        self._found: dict[str, UserError] = {}

    def __call__(self, what: str, error: UserError) -> None:
        line = Message(LEFT_OUT, what=what, fault=error)
        self._found.setdefault(what, UserError(line, code="left-out"))

    @property
    def what(self) -> list[str]:
        """Their names."""
        return list(self._found)

    @property
    def lines(self) -> list[UserError]:
        """One for each, that says what is wrong with it."""
        return list(self._found.values())
