"""MODELS.md and a card for each bundle, from the bundles and the tables of results.

`python -m benchmarks.report.cards models/*.dermbundle --results benchmarks/results --out MODELS.md`
A card lies beside its bundle: NAME.md. What no table knows is written by hand into NAME.notes.md:
its first paragraph says what the model is for, the rest where it fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import jinja2

from benchmarks import PROCEDURAL
from benchmarks.report.repacked import hashes_of
from benchmarks.schema import tables
from benchmarks.schema.names import GROUP_MINIMUM, NETWORKS, TITLES
from benchmarks.schema.tables import GAP, WORST
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES, Model
from dermedge.cli import call
from dermedge.data.groups import SCALES
from dermedge.files import write_atomic
from dermedge.taxonomy import TITLES as CLASS_TITLES

# Of the figures that MODELS.md shows, in short.
HEADLINES = {
    "jaccard": "Jaccard",
    "malignant_auc": "AUC malignant",
    "malignant_sensitivity": "sensitivity at “see a doctor”",
    "malignant_specificity": "specificity there",
    "melanoma_auc": "AUC melanoma",
    "macro_auc": "mean AUC of classes",
    "likely_balanced_accuracy": "balanced accuracy",
}
_FIGURE = ("value", "low", "high")
_PARTS = {"test": 0, "val": 1, "all": 2, "train": 3}

Rows = list[dict[str, str]]


def read_results(folder: Path) -> tuple[Rows, Rows]:
    """All rows of the tables in a folder, and those of their groups. UserError as `tables.read`."""
    rows, groups = [], []
    for path in sorted(folder.glob("*.csv")):
        if not path.stem.endswith(tables.GROUPS):
            rows += tables.read(path)
            groups += tables.read(tables.groups_of(path), tables.GROUP_COLUMNS)
    return rows, groups


def describe(bundle: Bundle, rows: Rows, groups: Rows) -> dict:
    """What both pages say of one bundle, as text; `rows` and `groups` are those of its file."""
    manifest = bundle.manifest
    purpose, failures = _notes(bundle)
    by_part: dict[str, list[str]] = {}
    for role in ROLES:
        if role in manifest.models:
            by_part.setdefault(manifest.models[role].part, []).append(role)
    models = {part: manifest.models[roles[0]] for part, roles in by_part.items()}
    training = [_training(entry) for entry in manifest.training_data]
    return {
        "name": manifest.name,
        "file": bundle.path.name,
        "sha256": bundle.sha256,
        "bytes": bundle.path.stat().st_size,
        "created": manifest.created,
        "licence": manifest.licence,
        "procedural": manifest.procedural,
        "purpose": purpose,
        "failures": failures,
        "labels": [f"{label}: {CLASS_TITLES[label]}" for label in manifest.labels],
        "parameters": " + ".join(_millions(model.parameters) for model in models.values()),
        "macs": " + ".join(_millions(model.macs) for model in models.values()),
        "networks": [
            _network(model, " and ".join(roles))
            for model, roles in zip(models.values(), by_part.values(), strict=True)
        ],
        "training": training,
        "trained_on": list(dict.fromkeys(f"{t['data_set']}, {t['pictures']}" for t in training)),
        "prior": _prior(bundle),
        "thresholds": _thresholds(bundle),
        "measured": _measured(rows, groups),
        "headlines": [_headline(row) for row in _plain(rows)],
        "commands": list(dict.fromkeys(row["command"] for row in _plain(rows))),
    }


def _notes(bundle: Bundle) -> tuple[str, str]:
    """What it is for, and where it fails."""
    path = bundle.path.with_suffix(".notes.md")
    text = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    purpose, _, failures = text.partition("\n\n")
    roles = " and ".join(
        {"segmenter": "outline", "classifier": "class"}[role]
        for role in ROLES
        if role in bundle.manifest.models
    )
    return (
        purpose.strip() or f"The {roles} of a lesion.",
        failures.strip() or "None has been written down; that does not mean that there are none.",
    )


def _network(model: Model, roles: str) -> dict[str, str]:
    spec = model.preprocessing
    precision = f"computed in {model.precision}"
    if model.weights == "half":
        precision += ", weights stored in half precision"
    return {
        "roles": roles,
        "architecture": model.architecture,
        "parameters": _millions(model.parameters),
        "macs": _millions(model.macs),
        "precision": precision,
        "size": str(spec.size),
        "crop": f"{spec.crop:g} sides of its box" if spec.crop else "no",
        "colour": f"shades of gray, p = {spec.minkowski_norm}" if spec.color_constancy else "no",
        "hair": "yes" if spec.hair_removal else "no",
        "metadata": f"{', '.join(model.metadata)} (where known)" if model.metadata else "nothing",
    }


def _training(entry: dict) -> dict[str, str]:
    length = [f"{entry[name]} {name}" for name in ("epochs", "steps") if entry.get(name)]
    subset = f" ({entry['subset']})" if entry.get("subset") else ""
    origin = entry.get("from_bundle")
    taken = f", taken from the bundle {origin['name']} ({origin['sha256'][:12]})" if origin else ""
    return {
        "role": f"{entry.get('role', '')}{taken}",
        "data_set": entry.get("data_set", ""),
        "licence": entry.get("licence", ""),
        "pictures": f"{entry.get('pictures', {}).get('train', '–')} pictures{subset}",
        "split": entry.get("split_sha256", "")[:16],
        "seed": str(entry.get("seed", "–")),
        "length": ", ".join(length) or "–",
        "start": started_from(entry),
    }


def started_from(entry: dict) -> str:
    """What a network started from, and whom it learnt from, by the manifest's entry."""
    # Bundles of version 0.1 did not note another start.
    plain = "random weights" if "start" in entry else "not stated"
    if entry.get("imagenet_weights"):
        plain = "ImageNet weights"
    started = entry.get("start") or plain
    teachers = ", ".join(entry.get("teachers", ()))
    return f"{started}; teachers: {teachers}" if teachers else started


def _prior(bundle: Bundle) -> str:
    """Which prior of the classes the probabilities carry; "" without a classifier."""
    if "classifier" not in bundle.manifest.models:
        return ""
    entries = bundle.manifest.training_data
    entry = next((e for e in entries if e.get("role") in ("classifier", "multitask")), {})
    if not entry.get("prior"):
        return "not stated (trained by version 0.2.0 or before)"
    shares = ", ".join(f"{label} {share:.3f}" for label, share in entry["prior"].items())
    return f"{shares} ({entry.get('prior_of') or 'as trained'})"


def _thresholds(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    limits = manifest.thresholds
    found = []
    if "segmenter" in manifest.models:
        found.append(("Lesion, probability of a pixel", f"{limits.mask:g}"))
    if "classifier" in manifest.models:
        found.append(("“See a doctor”, malignancy", f"{limits.see_doctor:g}"))
        found.append(("“Urgent”, malignancy", f"{limits.urgent:g}"))
        if limits.unfamiliar is not None:
            found.append(("Out of distribution, distance", f"{limits.unfamiliar:.4g}"))
        if any(limits.class_offsets):
            offsets = zip(manifest.labels, limits.class_offsets, strict=True)
            shown = ", ".join(f"{label} {value:+.2f}" for label, value in offsets)
            found.append(("Added to log-probabilities before a class is named", shown))
    return found


def _set(row: dict[str, str]) -> tuple[str, ...]:
    return row["data_set"], row["part"], row["split_sha256"], row["subset"], row["limit"]


def _way(row: dict[str, str]) -> tuple[str, str, str]:
    """How the networks were run; the plain way sorts first."""
    return row["precision"], row["tta"], "~" if row["metadata"] == "withheld" else row["metadata"]


def _plain(rows: Rows) -> Rows:
    """Of each set the networks' row that was taken as `analyze` works by default."""
    chosen: dict[tuple[str, ...], dict[str, str]] = {}
    for row in sorted(rows, key=_way):
        if row["method"] == NETWORKS and row["part"] != "train":
            chosen.setdefault(_set(row), row)
    return sorted(chosen.values(), key=lambda row: (_PARTS.get(row["part"], 9), _set(row)))


def _headline(row: dict[str, str]) -> str:
    shown = [f"{title} {_figure(row, name)}" for name, title in HEADLINES.items() if row[name]]
    mind = " (mind what the card says of it)" if row["warnings"] else ""
    views = f", mean of {row['tta']} views" if row["tta"] != "1" else ""
    views += f", in {row['precision']}" if row["precision"] else ""
    return f"*{_named(row)}{views}*{mind}: {'; '.join(shown)}"


def _named(row: dict[str, str]) -> str:
    subset = f", {row['limit']} pictures of it" if row["limit"] else ""
    part = "all pictures" if row["part"] == "all" else f"{row['part']} part"
    kept = f", {row['subset']}" if row["subset"] else ""
    return f"{row['data_set']}, {part}{kept}{subset}"


def _measured(rows: Rows, groups: Rows) -> list[dict]:
    """A section for each set of pictures: figures of each way to run, of classes and of people."""
    sections = []
    for plain in _plain(rows):
        same = [row for row in rows if _set(row) == _set(plain)]
        ours = sorted((row for row in same if row["method"] == NETWORKS), key=_way)
        # A baseline is the same whatever way the networks are run.
        simple = {row["method"]: row for row in same if row["method"] != NETWORKS}
        columns = {_way_in_words(row): row for row in ours} | simple
        names = [n for n in tables.MEASURES if any(row[n] for row in columns.values())]
        members = [
            row
            for row in groups
            if row["method"] == NETWORKS and _set(row) == _set(plain) and _way(row) == _way(plain)
        ]
        counts = [f"{plain['pictures']} pictures"]
        counts += [
            f"{plain[n]} {text}" for n, text in _COUNTED.items() if plain[n] not in ("", "0")
        ]
        sections.append(
            {
                "title": _named(plain),
                "text": f"{', '.join(counts)}; split `{plain['split_sha256'] or 'none'}`; "
                f"intervals over {plain['clusters']}; {plain['date'][:10]}, {plain['hardware']}, "
                f"commit {plain['commit']}.",
                "warnings": [warning for warning in plain["warnings"].split("; ") if warning],
                "figures": [
                    ["Measure", *columns],
                    *(
                        [tables.MEASURES[name], *(_figure(row, name) for row in columns.values())]
                        for name in names
                    ),
                ],
                "classes": _grouped(members, "class ", "Class"),
                "people": _people(members),
                "skin": any(row["group"].startswith("skin ") for row in members),
                "ood": _grouped(members, "ood ", "Kind"),
            }
        )
    return sections


_COUNTED = {"outlines": "with a true outline", "malignant": "malignant", "unread": "unreadable"}
_SHORT = {
    **TITLES,
    "auc": "AUC",
    "average_precision": "Average precision",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "flagged": "Marked as out of distribution",
    "retaken": "No estimate",
}


def _way_in_words(row: dict[str, str]) -> str:
    words = []
    if row["metadata"] == "withheld":
        words.append("picture alone")
    elif row["metadata"] != "-":
        words.append(f"with {row['metadata'].replace('+', ', ')}")
    if row["tta"] != "1":
        words.append(f"mean of {row['tta']} views")
    if row["precision"]:
        words.append(f"in {row['precision']}")
    return "Networks" + (f", {', '.join(words)}" if words else "")


def _people(members: Rows) -> list[dict]:
    """Of each scale that groups people: title, table of the groups, table of the gaps."""
    found = []
    for scale in SCALES.values():
        groups = _grouped(members, f"{scale.name} ", scale.name.capitalize(), scale.groups)
        if groups:
            found.append(
                {"title": scale.title, "groups": groups, "gaps": _gaps(members, scale.name)}
            )
    return found


def _gaps(members: Rows, name: str) -> list[list[str]]:
    """A table, header first, of the gaps between the groups of a scale; [] where there is none."""
    rows = [r for r in members if r["group"].startswith((f"{GAP}{name}: ", f"{WORST}{name}: "))]
    table = []
    for measure in [one for one in _SHORT if any(r["measure"] == one for r in rows)]:
        own = {
            r["group"].partition(" ")[0] + " ": r | {"group": r["group"].partition(": ")[2]}
            for r in rows
            if r["measure"] == measure
        }
        gap, worst = own[GAP], own[WORST]
        names = gap["group"].replace(" - ", " minus ")
        table.append([_SHORT[measure], names, _shown(gap, "+"), worst["group"], _shown(worst)])
    return [["Measure", "Groups", "Difference", "Worst", "Its figure"], *table] if table else []


def _grouped(members: Rows, prefix: str, title: str, order: Sequence[str] = ()) -> list[list[str]]:
    """A table, header first, of the groups whose name begins so; [] where there is none.

    order : of the names without the prefix, where it is not that of the rows; others come last.
    """
    members = [row for row in members if row["group"].startswith(prefix)]
    if not members:
        return []
    measures = [name for name in _SHORT if any(row["measure"] == name for row in members)]
    counts = [name for name in ("malignant", "benign") if any(row[name] for row in members)]
    head = [title, "Pictures", *map(str.capitalize, counts), *(_SHORT[n] for n in measures)]
    table = [head]
    names = list(dict.fromkeys(row["group"].removeprefix(prefix) for row in members))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    for name in names:
        found = {row["measure"]: row for row in members if row["group"] == prefix + name}
        one = next(iter(found.values()))
        table.append(
            [
                f"{name}: {CLASS_TITLES[name]}" if name in CLASS_TITLES else name,
                one["pictures"],
                *(one[count] or "–" for count in counts),
                *(_judged(found[n]) if n in found else "–" for n in measures),
            ]
        )
    return table


def _judged(row: dict[str, str]) -> str:
    return "too few" if row["judged"] == "too few" else _shown(row)


def _figure(row: dict[str, str], name: str) -> str:
    parts = {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
    return _shown(parts)


def _shown(figure: dict[str, str], sign: str = "-") -> str:
    if not figure["value"]:
        return "–"
    value, *limits = (
        f"{float(figure[part]):{sign}.3f}" if figure[part] else "" for part in _FIGURE
    )
    return f"{value} ({' to '.join(limits)})" if limits[0] else value


def _millions(count: int | None) -> str:
    if count is None:
        return "–"
    if count < 1000:
        return str(count)
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(rows: list[list[str]]) -> str:
    """Markdown of a table whose first row is its header; numbers to the right."""
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    rule = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    """Write the pages that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report.cards", description=__doc__)
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="its card lies beside it")
    parser.add_argument("--results", required=True, metavar="DIR", help="folder of the tables")
    parser.add_argument("--out", required=True, metavar="FILE.md", help="the list of models")
    args = parser.parse_args(argv)
    if not Path(args.results).is_dir():
        raise UserError(f"--results: there is no folder {args.results}")
    rows, groups = read_results(Path(args.results))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"cell": _cell, "table": _table, "size": lambda n: f"{n / 1024:.0f} KiB"}
    root = Path(args.out).resolve().parent
    models = []
    for path in args.bundles:
        bundle = Bundle.open(path)
        own = {sha256[:16] for sha256 in hashes_of(bundle)}
        model = describe(
            bundle,
            [row for row in rows if row["sha256"] in own],
            [row for row in groups if row["sha256"] in own],
        )
        card = bundle.path.with_suffix(".md")
        text = environment.get_template("card.md.jinja").render(
            model=model, disclaimer=DISCLAIMER, procedural=PROCEDURAL, minimum=GROUP_MINIMUM
        )
        write_atomic(card, text)
        links = {"bundle_link": bundle.path, "card_link": card}
        model |= {
            name: quote(Path(os.path.relpath(file.resolve(), root)).as_posix())
            for name, file in links.items()
        }
        models.append(model)
    text = environment.get_template("models.md.jinja").render(
        models=models,
        disclaimer=DISCLAIMER,
        results=Path(os.path.relpath(Path(args.results).resolve(), root)).as_posix(),
        splits=Path(args.results, "splits").is_dir(),
    )
    write_atomic(args.out, text)


if __name__ == "__main__":
    sys.exit(call(main))
