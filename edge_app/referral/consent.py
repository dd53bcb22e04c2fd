"""Consent to send: what the person agrees to, in versions that are kept.

A text that was ever shown is never changed: a new wording is a new version, and the old one stays
here, so that a referral of years ago can be read with what was agreed to then.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from dermedge import UserError
from edge_app.i18n.language import N_

CURRENT = "2026-11"  # version of the text that is asked for today
TEXTS = {
    "2026-11": {
        "en": (
            "The pictures and answers that are shown on the next page are sent to a "
            "dermatologist, who is asked for an opinion on this spot.\n"
            "The clinic that receives them keeps them in its records. Its rules and the law of "
            "its country hold there. They cannot be called back from this device.\n"
            "Without an identifier of the clinic they carry a random code instead of your name. "
            "What can be seen in a picture, such as a tattoo or a face, is sent as it is.\n"
            "The estimate of this device is sent along. It is for research and not a diagnosis.\n"
            "Sending is your choice. You may say no now; nothing else depends on it."
        ),
        "de": (
            "Die Bilder und Antworten, die auf der nächsten Seite zu sehen sind, werden an eine "
            "Hautärztin oder einen Hautarzt gesendet, um eine Meinung zu dieser Stelle zu "
            "bekommen.\n"
            "Die Klinik, die sie empfängt, bewahrt sie in ihren Akten auf. Dort gelten ihre Regeln "
            "und das Recht ihres Landes. Von diesem Gerät aus können sie nicht zurückgeholt "
            "werden.\n"
            "Ohne eine Kennung der Klinik tragen sie statt Ihres Namens einen zufälligen Code. Was "
            "auf einem Bild zu sehen ist, etwa eine Tätowierung oder ein Gesicht, wird so "
            "gesendet, wie es ist.\n"
            "Die Schätzung dieses Geräts wird mitgesendet. Sie dient der Forschung und ist keine "
            "Diagnose.\n"
            "Sie entscheiden, ob gesendet wird. Sie können jetzt Nein sagen; nichts anderes hängt "
            "davon ab."
        ),
        "es": (
            "Las imágenes y las respuestas que se muestran en la página siguiente se envían a un "
            "dermatólogo, al que se pide su opinión sobre esta mancha.\n"
            "La clínica que las recibe las guarda en sus archivos. Allí rigen sus normas y la ley "
            "de su país. No se pueden retirar desde este dispositivo.\n"
            "Sin un identificador de la clínica llevan un código aleatorio en lugar de su nombre. "
            "Lo que se ve en una imagen, como un tatuaje o una cara, se envía tal cual.\n"
            "Se envía también la estimación de este dispositivo. Es para investigación y no es un "
            "diagnóstico.\n"
            "El envío es decisión suya. Puede decir que no ahora; nada más depende de ello."
        ),
        "ar": (
            "تُرسَل الصور والإجابات المعروضة في الصفحة التالية إلى طبيب جلدية لطلب رأيه في هذه "
            "البقعة.\n"
            "تحتفظ بها العيادة التي تستلمها في سجلاتها، وتسري هناك قواعدها وقانون بلدها. لا يمكن "
            "استرجاعها من هذا الجهاز.\n"
            "إذا لم يوجد معرّف من العيادة فإنها تحمل رمزًا عشوائيًا بدلًا من اسمك. وما يظهر في "
            "الصورة، مثل وشم أو وجه، يُرسَل كما هو.\n"
            "يُرسَل معها تقدير هذا الجهاز. وهو للبحث وليس تشخيصًا.\n"
            "الإرسال باختيارك. يمكنك أن تقول لا الآن، ولا يتوقف على ذلك أي شيء آخر."
        ),
    }
}
UNKNOWN = N_("this consent is not to a text that dermedge knows: ask for consent again")


@dataclass(frozen=True)
class Consent:
    """That a person agreed to send."""

    version: str  # of TEXTS
    language: str  # in which the text was read
    given: datetime  # with a time zone
    sha256: str  # of the text in that language, UTF-8, hexadecimal

    @classmethod
    def to(cls, version: str, language: str, given: datetime) -> Consent:
        """Consent to a text as it stands in TEXTS; UserError for one that is not there."""
        return cls(version, language, given, digest(text(version, language)))

    @property
    def valid(self) -> bool:
        """Whether it is to a text that was ever shown."""
        shown = TEXTS.get(self.version, {}).get(self.language)
        return shown is not None and digest(shown) == self.sha256


def text(version: str, language: str) -> str:
    """What was agreed to; UserError for a version or language that is not there."""
    try:
        return TEXTS[version][language]
    except KeyError:
        raise UserError(UNKNOWN, code="consent-unknown") from None


def digest(words: str) -> str:
    """SHA-256 of a text in UTF-8, hexadecimal."""
    return hashlib.sha256(words.encode()).hexdigest()
