"""Checks of a manifest's plain JSON, entry by entry, before anything is made of it.

All that any reader takes from a manifest is checked here: types, ranges, lengths, and that text
can be shown in a line. Each error names its entry as `models.classifier.parameters`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NoReturn

from dermedge.metadata import FIELDS
from dermedge.text import printable

MAX_DEPTH, MAX_TEXT, MAX_ITEMS = 12, 4000, 1000
MAX_COUNT = 10**15  # of parameters, pictures, bytes, steps
MAX_RELEASE = 10**9

Check = Callable[[str, object], None]


def load_json(text: bytes | str) -> object:
    """Strict JSON: no key twice, no NaN or infinity. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_float)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key comes twice")
    return content


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _fail(path: str, wanted: str, value: object) -> NoReturn:
    shown = printable(repr(value))
    raise ValueError(f"{path} must be {wanted}, got {shown[:60]}{'...' * (len(shown) > 60)}")


def text(most: int = 200, least: int = 0) -> Check:
    """A string in one line."""

    def check(path: str, value: object) -> None:
        if not isinstance(value, str) or not least <= len(value.strip()) or len(value) > most:
            _fail(path, f"text of {least} to {most} characters", value)
        if printable(value) != value:
            _fail(path, "text in one line", value)

    return check


def one_of(*names: str) -> Check:
    """One of these strings."""

    def check(path: str, value: object) -> None:
        if not isinstance(value, str) or value not in names:
            _fail(path, f"one of {', '.join(names)}", value)

    return check


def number(low: float = -1e300, high: float = 1e300, open_below: bool = False) -> Check:
    """A finite number in [low, high], or in (low, high]."""

    def check(path: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _fail(path, "a finite number", value)
        # A whole number may be too large for a float; it compares all the same.
        if isinstance(value, float) and not math.isfinite(value):
            _fail(path, "a finite number", value)
        if not low <= value <= high or (open_below and value == low):
            _fail(path, f"a number in {'(' if open_below else '['}{low:g}, {high:g}]", value)

    return check


def whole(low: int = 0, high: int = MAX_COUNT) -> Check:
    """A whole number in [low, high]."""

    def check(path: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            _fail(path, f"a whole number of {low} to {high:g}", value)

    return check


def true_or_false(path: str, value: object) -> None:
    """A boolean."""
    if not isinstance(value, bool):
        _fail(path, "true or false", value)


def digest(path: str, value: object) -> None:
    """A SHA-256: 64 lower-case hex digits."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        _fail(path, "a SHA-256", value)


def time(path: str, value: object) -> None:
    """A time as ISO 8601."""
    text(most=40, least=1)(path, value)
    try:
        datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        _fail(path, "a time as 2026-01-31T12:00:00+00:00", value)


def optional(check: Check) -> Check:
    """What `check` takes, or null."""

    def checked(path: str, value: object) -> None:
        if value is not None:
            check(path, value)

    return checked


def array(check: Check, least: int = 0, most: int = MAX_ITEMS) -> Check:
    """A list of `least` to `most` items that `check` takes."""

    def checked(path: str, value: object) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            _fail(path, f"a list of {least} to {most}", value)
        for position, item in enumerate(value):
            check(f"{path}[{position}]", item)

    return checked


def record(
    known: Mapping[str, Check], required: tuple[str, ...] = (), others: Check | None = None
) -> Check:
    """An object. Keys that are not `known` go through `others`; None: there may be none."""

    def check(path: str, value: object) -> None:
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            _fail(path or "the manifest", "an object", value)
        dot = f"{path}." if path else ""
        for name in required:
            if name not in value:
                raise ValueError(f"{dot}{name} is missing")
        for name, item in value.items():
            text(most=200)(f"a key of {path or 'the manifest'}", name)
            check_item = known.get(name, others)
            if check_item is None:
                raise ValueError(f"unknown key {dot}{name}")
            check_item(f"{dot}{name}", item)

    return check


def anything(path: str, value: object) -> None:
    """Any JSON within bounds: what is only shown, and may grow with later versions."""
    _anything(path, value, MAX_DEPTH)


def _anything(path: str, value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"{path} is nested too deep")
    if isinstance(value, str):
        text(MAX_TEXT)(path, value)
    elif isinstance(value, (list, dict)):
        inside = array if isinstance(value, list) else _each
        inside(lambda path, item: _anything(path, item, depth - 1))(path, value)
    elif value is not None and not isinstance(value, bool):
        number()(path, value)


def _each(check: Check) -> Check:
    return record({}, others=check)


_FIGURE = record({name: optional(number()) for name in ("value", "low", "high")}, others=anything)
_SHARE = record(
    {
        "value": number(0, 1),
        "low": optional(number(0, 1)),
        "high": optional(number(0, 1)),
    },
    required=("value", "low", "high"),
    others=anything,
)
_TRIAGE = record(
    {"sensitivity": _SHARE, "specificity": _SHARE},
    required=("sensitivity", "specificity"),
    others=anything,
)
_MEASURED = record(
    {
        "pictures": whole(),
        "malignant": whole(),
        "data_set": text(),
        "part": text(),
        "split_sha256": digest,
        "see_doctor": _TRIAGE,
        "urgent": _TRIAGE,
        "auc_malignant": _FIGURE,
        "balanced_accuracy": _FIGURE,
        "macro_auc": _FIGURE,
        "jaccard": _FIGURE,
        "ece": optional(number()),
        "ece_before": optional(number()),
        "temperature": number(0),
    },
    others=anything,
)


def manifest_check(
    roles: tuple[str, ...],
    precisions: tuple[str, ...],
    targets: tuple[str, ...],
    weights: tuple[str, ...],
    classes: tuple[str, ...],
    part_names: re.Pattern[str],
    part_bytes: int,
) -> Check:
    """The check of a whole manifest, without its format and checksum."""
    target = one_of(*targets)
    variant = {
        "part": text(80, 1),
        "precision": one_of(*precisions),
        "targets": array(target, most=len(targets)),
    }
    model = {
        **variant,
        "architecture": text(100, 1),
        "preprocessing": record(
            {
                "size": whole(),
                "color_constancy": true_or_false,
                "minkowski_norm": whole(),
                "hair_removal": true_or_false,
                "crop": number(),
            },
            others=anything,  # `Preprocessing.from_dict` names a step that it does not know
        ),
        "parameters": optional(whole()),
        "macs": optional(whole()),
        "weights": one_of(*weights),
        "metadata": array(one_of(*FIELDS), most=len(FIELDS)),
        "variants": array(record(variant, required=tuple(variant)), most=64),
    }
    thresholds = {
        "mask": number(0, 1, open_below=True),
        "see_doctor": number(0, 1, open_below=True),
        "urgent": number(0, 1, open_below=True),
        "unfamiliar": optional(number(0, 1e6, open_below=True)),
        "class_offsets": array(number(-1e3, 1e3), most=len(classes)),
    }
    training = {
        "role": text(),
        "data_set": text(),
        "licence": text(MAX_TEXT),
        "procedural": true_or_false,
        "split_sha256": digest,
        "subset": anything,
        "pictures": record({}, others=whole()),
        "recipe": text(),
        "recipe_sha256": digest,
        "commit": optional(text()),
        "seed": whole(-MAX_COUNT),
        "start": text(),
        "teachers": array(text()),
        "epochs": optional(whole()),
        "steps": optional(whole()),
        "planned_steps": optional(whole()),
        "finished": true_or_false,
        "versions": record({}, others=anything),
    }
    report = {
        "roles": array(one_of(*roles), 1, len(roles)),
        "precision": one_of(*precisions),
        "targets": array(target, most=len(targets)),
        "passed": true_or_false,
        "reasons": array(text(MAX_TEXT)),
        "figures": record({}, others=anything),
        "speed": optional(
            record(
                {name: number(0) for name in ("ratio", "low", "high", "ms", "fp32_ms")},
                others=anything,
            )
        ),
        "bytes": whole(high=part_bytes),
        "share_of_fp32": number(0),
    }
    parity = {
        "count": whole(),
        "max_abs_difference": number(0),
        "mean_abs_difference": number(0),
        "max_relative_difference": number(0),
    }
    part = {"sha256": digest, "bytes": whole(high=part_bytes)}

    def part_of(path: str, value: object) -> None:
        name = path.removeprefix("parts.")
        if not part_names.fullmatch(name):
            raise ValueError(f"part name {printable(name[:80])!r} is not allowed")
        record(part, required=tuple(part), others=anything)(path, value)

    entries = {
        "name": text(64, 1),
        "created": time,
        "labels": array(one_of(*classes), most=len(classes)),
        "models": record(
            dict.fromkeys(roles, record(model, required=("part", "architecture", "preprocessing")))
        ),
        "thresholds": record(thresholds),
        "licence": text(MAX_TEXT, 1),
        "procedural": true_or_false,
        "training_data": array(record(training, others=anything), most=64),
        "measured": record(dict.fromkeys(roles, _MEASURED)),
        "parity": record(dict.fromkeys(roles, record(parity, others=anything))),
        "gate": array(
            record(
                report,
                required=("roles", "precision", "targets", "passed", "reasons"),
                others=anything,
            ),
            most=256,
        ),
        "software": record({}, others=text()),
        "release": optional(whole(1, MAX_RELEASE)),
        "parts": record({}, others=part_of),
    }
    required = ("name", "created", "labels", "models", "thresholds", "licence", "procedural")
    return record(entries, required)
