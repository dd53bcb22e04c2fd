"""How hard a passphrase is to guess, said simply: its length, its words, and what everybody takes.

An export leaves the device, and whoever finds it may guess as often as they like: it needs twelve
characters or four words. The store of the device itself needs eight characters. In both, what is
guessed first is refused. The estimate is a lower bound of what an attacker has to try; nobody can
say how a passphrase was chosen.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from edge_app.look.language import N_

LENGTH, WORDS = 12, 4  # of what leaves the device
OWN_LENGTH = 8  # of the device's own store
WORD = 3.5  # decimal digits of guesses that a word of a language stands for
KNOWN = 2.0  # the same for what is on the list below, or follows a pattern
WEAK, GOOD = 7.0, 14.0  # decimal digits of guesses
SHORT = N_("the passphrase is too short: take at least twelve characters, or four words")
OWN_SHORT = N_("the passphrase is too short: take at least eight characters")
EASY = N_(
    "this passphrase is among the first that are tried: take four words that do not belong together"
)
LEVELS = (
    N_("Too easy to guess"),
    N_("Enough"),
    N_("Strong"),
)
ROWS = (
    "abcdefghijklmnopqrstuvwxyz", "0123456789", "1234567890", "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm", "azertyuiopqsdfghjklmwxcvbn", "1q2w3e4r5t6z7u8i9o0p",
    "1q2w3e4r5t6y7u8i9o0p", "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
)  # fmt: skip
# What people take first, in the app's languages; letters alone, without digits around them.
_FIRST = """
    password passwort contrasena contraseña clave secret secreto geheim kennwort admin
    administrator administrador operator operador benutzer user usuario login letmein welcome
    willkommen bienvenido hello hallo hola test testing master monkey dragon football fussball
    futbol baseball sunshine princess prinzessin princesa iloveyou ichliebedich teamo tequiero
    schatz schatzi amor superman batman starwars pokemon trustno shadow michael changeme default
    temp summer sommer verano winter invierno spring fruehling frühling autumn herbst monday montag
    lunes january januar enero doctor doktor arzt medico médico nurse krankenschwester enfermera
    hospital krankenhaus clinic klinik clinica clínica praxis patient paciente patienten cases
    dermedge derma dermatology dermatologie dermatologia melanoma melanom skin haut piel kiosk
    سلام مرحبا مستشفى طبيب حبيبي محمد احمد الله
"""
COMMON = frozenset(_FIRST.split())
_UNDISGUISED = str.maketrans("013457@$!", "oieastasi")


@dataclass(frozen=True)
class Strength:
    """Of a passphrase. `level` counts in LEVELS; `fault` says why it is refused, empty if not."""

    level: int
    fault: str


def strength(passphrase: str, own: bool = False) -> Strength:
    """`own` : for the store of this device, not for a file that leaves it."""
    text = unicodedata.normalize("NFC", passphrase)
    words = [word for word in re.split(r"[\W_]+", text) if len(word) > 1 and not word.isdigit()]
    several = len({word.casefold() for word in words}) >= WORDS
    if own and len(text) < OWN_LENGTH:
        return Strength(0, OWN_SHORT)
    if not own and len(text) < LENGTH and not several:
        return Strength(0, SHORT)
    digits = _digits(text)
    if digits < WEAK:
        return Strength(0, EASY)
    return Strength(2 if digits >= GOOD else 1, "")


def _digits(text: str) -> float:
    """Decimal digits of the number of guesses, at least."""
    text = _once(text.casefold())
    found = _by_characters(text)
    parts = re.findall(r"[^\W\d_]+|\d+|[\W_]+", text)
    return min(found, sum(map(_part, parts)), _part(text), _part(text.translate(_UNDISGUISED)))


def _part(part: str) -> float:
    bare = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", part)
    if part in COMMON or part.translate(_UNDISGUISED) in COMMON:
        return KNOWN
    if bare and bare != part and (bare in COMMON or bare.translate(_UNDISGUISED) in COMMON):
        rest = part.replace(bare, "", 1)
        return KNOWN + _by_characters(rest)
    if len(part) > 2 and any(part in 2 * row or part in 2 * row[::-1] for row in ROWS):
        return KNOWN
    if re.fullmatch(r"(19|20)\d\d", part):
        return KNOWN
    if part.isalpha():
        return min(WORD, _by_characters(part)) if len(part) < 10 else _by_characters(part) / 2
    return _by_characters(part)


def _once(text: str) -> str:
    """'abcabcabc' is no more than 'abc' and how often."""
    for length in range(1, len(text) // 2 + 1):
        if (text[:length] * (len(text) // length + 1))[: len(text)] == text:
            return text[:length] + "2"
    return text


def _by_characters(text: str) -> float:
    kinds = (
        (10, any(c.isdigit() for c in text)),
        (26, any(c.isalpha() for c in text)),
        (20, any(not c.isalnum() for c in text)),
    )
    pool = min(sum(size for size, there in kinds if there), 4 * len(set(text)))
    return len(text) * math.log10(max(pool, 1)) if pool > 1 else min(1.0, float(len(text)))
