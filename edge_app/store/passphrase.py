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

from edge_app.i18n.language import N_

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
    words = {word.casefold() for word in re.findall(r"[^\W\d_]+", text) if _is_word(word)}
    several = len(words) >= WORDS
    if own and len(text) < OWN_LENGTH:
        return Strength(0, OWN_SHORT)
    if not own and len(text) < LENGTH and not several:
        return Strength(0, SHORT)
    digits = _digits(text)
    if digits < WEAK:
        return Strength(0, EASY)
    return Strength(2 if digits >= GOOD else 1, "")


def _is_word(letters: str) -> bool:
    return len(letters) > 1 or letters >= "\u2e80"  # where one character may be a word


def _digits(text: str) -> float:
    """Decimal digits of the number of guesses, at least."""
    text = _once(text.casefold())
    kinds = ((10, str.isdigit), (26, str.isalpha), (20, lambda c: not c.isalnum()))
    pool = sum(size for size, is_kind in kinds if any(map(is_kind, text)))
    each = math.log10(pool or 1)
    bare = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", text)
    found = _sum(text, each)
    if bare.translate(_UNDISGUISED) in COMMON:
        found = min(found, KNOWN + _sum(text.replace(bare, "", 1), each))
    return found


def _sum(text: str, each: float) -> float:
    if _is_pattern(text):
        return KNOWN
    return sum(_part(part, each) for part in re.findall(r"[^\W\d_]+|\d+|[\W_]+", text))


def _part(part: str, each: float) -> float:
    if part in COMMON or _is_pattern(part) or re.fullmatch(r"(19|20)\d\d", part):
        return KNOWN
    if len(set(part)) == 1:
        return min(len(part), 2) * each
    by_letter = len(part) * each
    if not part.isalpha() or len(part) < 3:
        return by_letter
    # A long run of letters is words that were joined.
    return min(by_letter, WORD * max(1.0, len(part) / 6))


def _is_pattern(part: str) -> bool:
    return len(part) > 2 and any(part in 2 * row or part in 2 * row[::-1] for row in ROWS)


def _once(text: str) -> str:
    """'abcabcabc' is no more than 'abc' and how often."""
    for length in range(1, len(text) // 2 + 1):
        if (text[:length] * (len(text) // length + 1))[: len(text)] == text:
            return text[:length] + "2"
    return text
