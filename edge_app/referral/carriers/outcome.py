"""What became of the delivery of a parcel."""

from __future__ import annotations

from dataclasses import dataclass

from dermedge import UserError
from edge_app.i18n.language import N_, Message


@dataclass(frozen=True)
class Receipt:
    """The receiver has shown that it has a parcel, as it was sent."""

    place: str  # where that was asked
    references: tuple[str, ...] = ()  # by which the receiver knows the parts of a transaction


class Later(UserError):
    """It may work another time. `retry_after` : seconds that the receiver asks to wait."""

    def __init__(self, words: Message, code: str, retry_after: float = 0.0, down: bool = False):
        super().__init__(words, code=code)
        self.words, self.retry_after = words, retry_after
        self.down = down  # nobody answers there: other parcels need not be tried now


class Refused(UserError):
    """It will not work before somebody changes something."""

    def __init__(self, words: Message, code: str):
        super().__init__(words, code=code)
        self.words = words


def is_alone(error: UserError) -> bool:
    """Whether it is about what was asked for alone: a right may be for some kinds or studies."""
    return error.code == "403" or (isinstance(error, Later) and not error.down)


UNLISTED = N_("{place} answered, but does not say that it stored the parcel: it is sent again")
NOT_THERE = N_("{place} says that it stored the parcel, but does not show it: it is sent again")
CHANGED = N_(
    "{place} has other content under the same number: ask its administrator; make a new referral"
)
NOBODY = N_("nobody answers at {place}: check the network and the address")
SLOW = N_("{place} does not answer in time: it is tried again")
BUSY = N_("{place} is busy ({status}): it is tried again")
BROKEN = N_("the connection to {place} broke off: it is tried again")
CERTIFICATE = N_("the certificate of {place} is not to be trusted ({fault}): nothing was sent")
OWN_CERTIFICATE = N_(
    "{place} does not take the certificate of this device ({fault}), nothing was sent: enter "
    "another one"
)
NO_ENCRYPTION = N_(
    "{place} and this device agree on no encryption ({fault}), nothing was sent: ask its "
    "administrator whether this device needs a certificate"
)
UNFORESEEN = N_("an unforeseen fault ({fault}): it is tried again; tell your administrator")
TOO_LONG = N_("the answer of {place} is longer than it can be: it is tried again")
