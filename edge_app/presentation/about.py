"""What the app says of itself and of the model that it runs; no Kivy in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dermedge
from dermedge import DISCLAIMER
from dermedge.bundle.manifest import Manifest
from edge_app.i18n import language
from edge_app.i18n.language import N_, _, n_

LOG_LINES = 200
COLLECTIONS = {
    "ham10000": "HAM10000",
    "isic2017": "ISIC 2017",
    "isic2020": "ISIC 2020",
    "milk10k": "MILK10k",
    "pad_ufes_20": "PAD-UFES-20",
}
LICENCES = (
    ("dermedge", "Apache License 2.0"),
    ("Roboto", "Apache License 2.0, Google"),
    ("DejaVu Sans", N_("Bitstream Vera licence and public domain, DejaVu fonts team")),
)


@dataclass(frozen=True)
class Section:
    """A title, rows of names and values, and paragraphs."""

    title: str
    rows: tuple[tuple[str, str], ...] = ()
    paragraphs: tuple[str, ...] = ()


def sections(manifest: Manifest, sha256: str) -> list[Section]:
    licences = tuple((name, _(licence)) for name, licence in LICENCES)
    return [
        Section("dermedge", ((_("Version"), dermedge.__version__),), (_(DISCLAIMER),)),
        Section(
            _("Model"),
            (
                (_("Bundle"), manifest.name),
                (_("Made on"), language.day(manifest.created)),
                (_("Licence"), manifest.licence),
                ("SHA-256", sha256[:16]),
            ),
        ),
        Section(_("How good it is"), paragraphs=accuracy(manifest)),
        Section(_("Licences"), licences),
    ]


def _collections(data_set: str) -> str:
    """The names of those that a data set was joined of ("a+b"), or of the one."""
    return ", ".join(COLLECTIONS.get(key, key) for key in data_set.split("+"))


def accuracy(manifest: Manifest) -> tuple[str, ...]:
    """The measured accuracy of a manifest in plain words, with 95 % intervals."""
    measured, lines = manifest.measured.get("classifier", {}), []
    if manifest.procedural:
        lines.append(_("Trained and measured on drawn pictures, not on skin: it says nothing."))
    doctor = measured.get("see_doctor")
    if not doctor or "pictures" not in measured:
        return (*lines, _("Not measured."))
    lines += [
        _("Of 100 malignant spots it sends {value} to a doctor ({low} to {high}).",
          **_of_100(doctor["sensitivity"])),
        _("Of 100 harmless spots it sends {value} to a doctor without need ({low} to {high}).",
          **_of_100(doctor["specificity"], without=True)),
        n_("Measured on {count} picture of the collection {collection}, of which {malignant} were "
           "malignant.",
           "Measured on {count} pictures of the collection {collection}, of which {malignant} were "
           "malignant.",
           measured["pictures"],
           malignant=language.number(measured.get("malignant", 0)),
           collection=_collections(measured.get("data_set", "?"))),
    ]  # fmt: skip
    if measured.get("half") == "accepting":
        lines.append(
            _("None of its limits was chosen on them. In brackets: what chance alone leaves open "
              "(95 % interval).")
        )  # fmt: skip
    else:
        lines.append(
            _("Its limits were chosen on the same pictures: on others it may do worse. In "
              "brackets: what chance alone leaves open (95 % interval).")
        )  # fmt: skip
    return tuple(lines)


def _of_100(share: Mapping[str, float], without: bool = False) -> dict[str, str]:
    # Of too few pictures for an interval chance leaves everything open.
    value = 100 * share["value"]
    low = 0.0 if share["low"] is None else 100 * share["low"]
    high = 100.0 if share["high"] is None else 100 * share["high"]
    if without:
        low, value, high = 100 - high, 100 - value, 100 - low
    found = {"low": low, "value": value, "high": high}
    return {name: language.number(number) for name, number in found.items()}


def log(path: Path) -> list[str]:
    """The last lines of a kiosk's log, the newest first. Raises OSError."""
    return path.read_text(encoding="utf-8").splitlines()[: -LOG_LINES - 1 : -1]
