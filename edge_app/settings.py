"""What the app remembers from one start to the next, in one JSON file. Nothing of a person."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from dermedge.files import write_atomic
from dermedge.lesion.scale import REFERENCES
from edge_app.capture.sources import ROTATIONS
from edge_app.i18n.language import LANGUAGES, offered, preferred
from edge_app.ui.theme import TEXT_SIZES, THEMES


@dataclass
class Settings:
    """Each value is one of those that the settings screen offers."""

    language: str = ""  # of LANGUAGES; empty: that of the system
    theme: str = "light"  # of THEMES
    text: str = "normal"  # of TEXT_SIZES
    auto: bool = True  # take the picture when it is good and still
    rotation: int = 0  # of edge_app.capture.sources.ROTATIONS: of the live picture
    reference: str | None = None  # of dermedge.lesion.scale.REFERENCES: lies beside the lesion
    consent: int = 0  # version of the terms that were agreed to

    def spoken(self) -> str:
        return self.language if self.language in offered() else preferred()

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Those of the file; what is missing, damaged or unknown there is as at first."""
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        if not isinstance(kept, dict):
            kept = {}
        if "turn" in kept:  # as 0.1.0 wrote it
            kept.setdefault("rotation", kept["turn"])
        allowed = {
            "language": ("", *LANGUAGES),
            "theme": THEMES,
            "text": tuple(TEXT_SIZES),
            "auto": (True, False),
            "rotation": ROTATIONS,
            "reference": (None, *REFERENCES),
        }
        known = {
            name: kept[name]
            for name, values in allowed.items()
            if name in kept and kept[name] in values
        }
        if isinstance(kept.get("consent"), int):
            known["consent"] = kept["consent"]
        return cls(**known)

    def save(self, path: Path) -> None:
        """Raises OSError."""
        write_atomic(path, json.dumps(asdict(self), indent=1) + "\n", private=True)
