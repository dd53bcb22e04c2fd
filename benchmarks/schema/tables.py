"""The tables of results: what was measured, with what, and how it can be measured again.

`FILE.csv` holds one row a measurement and method: the networks of a bundle, and the baselines.
`FILE-groups.csv` beside it holds one row a figure of each class, group of people and kind of
picture that shows no lesion. Both are sorted, so that a new measurement changes no more than its
rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.schema.names import NETWORKS, TITLES
from dermedge import UserError
from dermedge.bundle.manifest import ROLES
from dermedge.data.groups import SCALES
from dermedge.files import read_text, write_atomic

# A row with all of these alike is the same measurement, and is replaced.
KEY = {
    "bundle": "name of the bundle",
    "sha256": "of the bundle, its first 16 digits",
    "method": "the networks, or a baseline that was measured on the same pictures",
    "data_set": "name of its reader",
    "part": "of the split: train, val, test, or all",
    "split_sha256": "of the split, its first 16 digits; of all, as if they were the test part",
    "subset": "what of the part was taken (`--modality`, `--leave-out`); empty: all of it",
    "limit": "how many pictures were selected by a hash of their ids; empty: all of the part",
    "tta": "mirrored views that were averaged: 1 (none) or 4",
    "metadata": "what the classifier got beside the picture, joined by +; 'withheld'; "
    "'-': it takes nothing",
    "precision": "that was asked for by `--precision`; empty: the bundle's first",
}
_OF_ROLE = {
    "architecture": "name of the network in the registry",
    "parameters": "how many numbers were learnt",
    "macs": "multiply-accumulates of one picture",
    "size": "side of the network's square input, px",
    "crop": "side of the square about the lesion, in sides of its box; 0: the whole picture",
    "precision": "what is computed in; +half: weights are stored in half precision",
    "bytes": "of the graph (the same one where a network plays both roles)",
    "data_set": "what it was trained on",
    "pictures": "in its training part",
    "split_sha256": "of its split, first 16 digits",
    "seed": "of its training",
    "epochs": "of its training, where the bundle tells",
    "steps": "of its training",
    "pretrained": "whether it started from ImageNet weights",
}
_COUNTS = {
    "bytes": "of the bundle file",
    "pictures": "that were measured",
    "outlines": "pictures with a true outline",
    "malignant": "pictures of a malignant lesion",
    "unread": "pictures that could not be read",
}
_OOD = {
    "marked_ood": "Share of these pictures that is marked as out of distribution",
    "ood_auc": "AUC of the distance, pictures that show no lesion against these",
    "ood_flagged": "Share of pictures that show no lesion that is marked",
    "ood_retaken": "Share of pictures that show no lesion that gets no estimate",
}
_ORIGIN = {
    "ood_pictures": "pictures that show no lesion",
    "clusters": "what the bootstrap draws whole",
    "commit": "of dermedge; a + behind it: files differed from it; '-': not run from a checkout",
    "hardware": "processor and cores",
    "date": "UTC",
    "command": "that was typed; of paths that lead elsewhere the last name",
    "warnings": "joined by ;",
}
MEASURES = {**TITLES, **_OOD}
COLUMNS = {
    **KEY,
    **{f"{role}_{name}": f"{role}: {text}" for role in ROLES for name, text in _OF_ROLE.items()},
    **_COUNTS,
    **{
        column: text
        for name, title in MEASURES.items()
        for column, text in (
            (name, title),
            (f"{name}_low", "lower limit of its 95 % interval"),
            (f"{name}_high", "upper limit"),
        )
    },
    **_ORIGIN,
}
GROUPS = "-groups"  # behind the name of a table of results: of its groups
# A row of people's groups begins with the name of its scale; one that compares them with these.
GAP, WORST = "gap ", "worst "
GROUP_COLUMNS = {
    **KEY,
    "group": "class LABEL; skin type TYPES (Fitzpatrick), skin tone TONE (MILK10k), age YEARS or "
    "sex SEX; of these gap SCALE: FIRST - LAST and worst SCALE: GROUP; or ood KIND",
    "measure": "name of the figure",
    "pictures": "of the group, or of all groups that are compared",
    "malignant": "of them; of people's groups only",
    "benign": "of them; of people's groups only",
    "judged": "of people's groups: yes, or too few (`GROUP_MINIMUM` of `benchmarks.schema.names`)",
    "value": "the figure",
    "low": "lower limit of its 95 % interval",
    "high": "upper limit",
}

_FIGURES = {"value", "low", "high"} | {
    name + suffix for name in MEASURES for suffix in ("", "_low", "_high")
}

# Tables of version 0.1.0 have other names; they are read for one version.
_RENAMED = {
    "unlike_pictures": "ood_pictures",
    **{
        old + suffix: new + suffix
        for old, new in (
            ("unfamiliar", "marked_ood"),
            *((f"unlike_{name}", f"ood_{name}") for name in ("auc", "flagged", "retaken")),
        )
        for suffix in ("", "_low", "_high")
    },
}


def read(path: str | Path, columns: dict[str, str] = COLUMNS) -> list[dict[str, str]]:
    """The rows of a table of results; [] where there is no such file.

    Raises UserError where the file is something else, or a figure in it is no number.
    """
    path = Path(path)
    if path.suffix != ".csv":
        raise UserError(f"a table of results is a .csv file, got {path}")
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        written = list(reader.fieldnames or ())
        reader.fieldnames = [_RENAMED.get(name, name) for name in written]
        rows, names = list(reader), set(reader.fieldnames)
    except UserError as error:
        raise UserError(f"{path} is no table of results: {error}") from None
    except (ValueError, csv.Error):
        raise UserError(f"{path} is no table of results: choose another file") from None
    required = set(KEY) - {"subset", "precision"}  # which tables of version 0.2.0 lack
    if not names <= set(columns) or not required <= names:
        odd = sorted(map(str, (names - set(columns)) or (required - names)))[0]
        raise UserError(f"{path} is no table of results (column {odd}): choose another file")
    for row in rows:
        if (group := row.get("group") or "").startswith("unlike "):
            row["group"] = "ood " + group.removeprefix("unlike ")
        for name in columns:
            if name in _FIGURES & names and not _is_number(row[name] or "0"):
                raise UserError(
                    f"{path}: {name} is {row[name]!r}, no number; a spreadsheet may have changed "
                    "it: take the file as it was written"
                )
    return [{name: row.get(name) or "" for name in columns} for row in rows]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def groups_of(path: str | Path) -> Path:
    """The table of classes, skin types and kinds that belongs to a table of results.

    UserError where that is itself called as one of groups, and would be left out of the cards.
    """
    if Path(path).stem.endswith(GROUPS):
        raise UserError(f"{path}: a table of groups is called so, give another name")
    return Path(path).with_name(f"{Path(path).stem}{GROUPS}.csv")


def update(path: str | Path, result: dict, precision: str = "") -> None:
    """Write the rows of an evaluation into the table, and into that of its groups.

    Rows of the same measurement are replaced. UserError as `read` raises it.

    precision : that was asked for; "": the bundle's first.
    """
    keys = {key["method"]: key | {"precision": precision} for key in _keys(result)}
    measured = {tuple(key.values()) for key in keys.values()}
    rows = list(_rows(result, keys))
    measured |= _as_before(path, rows)
    files = [
        (file, columns, [row for row in read(file, columns) if _key(row) not in measured], new)
        for file, columns, new in (
            (Path(path), COLUMNS, rows),
            (groups_of(path), GROUP_COLUMNS, list(_groups(result, keys)) if keys else []),
        )
    ]
    for file, columns, others, new in files:  # both were read: neither is written alone
        buffer = io.StringIO()
        written: list[dict[str, str]] = sorted([*others, *new], key=_order)
        writer = csv.DictWriter(buffer, list(columns), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(written)
        write_atomic(file, buffer.getvalue())


def _as_before(path: str | Path, rows: list[dict[str, str]]) -> set[tuple[str, ...]]:
    """The keys by which version 0.2.0 stored these rows: of all pictures it stated no split. Not
    where it measured another number of pictures."""
    stored = {_key(row): row["pictures"] for row in read(path)}
    older = {_key(row | {"split_sha256": ""}): row for row in rows if row["part"] == "all"}
    return {key for key, row in older.items() if stored.get(key) == row["pictures"]}


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _order(row: dict[str, str]) -> tuple:
    return _key(row), row.get("group", ""), row.get("measure", "")


def _keys(result: dict) -> Iterator[dict[str, str]]:
    """The key of each method that was measured, but for the precision."""
    data, metadata = result["data"], result["metadata"]
    used = "+".join(metadata["used"]) or ("withheld" if metadata["accepted"] else "-")
    for method in dict.fromkeys(entry["name"] for entry in result["methods"]):
        yield {
            "bundle": result["bundle"]["name"],
            "sha256": result["bundle"]["sha256"][:16],
            "method": method,
            "data_set": data["name"],
            "part": data["part"],
            "split_sha256": (data["split_sha256"] or "")[:16],
            "subset": data["subset"],
            "limit": _text(data["limit"]),
            "tta": str(result["views"]),
            "metadata": used,
        }


def _rows(result: dict, keys: Mapping[str, dict[str, str]]) -> Iterator[dict[str, str]]:
    hardware, data = result["hardware"], result["data"]
    for key in keys.values():
        methods = [entry for entry in result["methods"] if entry["name"] == key["method"]]
        measured = {name: value for entry in methods for name, value in entry["metrics"].items()}
        row = {
            **key,
            "pictures": _text(data["evaluated"]),
            "outlines": _text(_first(methods, "segmentation", "count")),
            "malignant": _text(_first(methods, "classification", "malignant")),
            "unread": str(len(data["unreadable"])),
            "clusters": result["intervals"]["clusters"],
            "commit": result["commit"],
            "hardware": f"{hardware['cpu'] or hardware['machine']}, "
            f"{hardware['usable_cores']} cores",
            "date": result["date"],
            "command": result["command"],
            # What joins them may stand within one: it would be read as two.
            "warnings": "; ".join(text.replace("; ", ", ") for text in result["warnings"]),
        }
        if key["method"] == NETWORKS:
            row |= _networks(result["bundle"])
            measured["marked_ood"] = result["ood_flagged"]
            if ood := result["ood"]:
                row["ood_pictures"] = str(ood["pictures"])
                for name in ("auc", "flagged", "retaken"):
                    measured[f"ood_{name}"] = ood[name]
        for name, figure in measured.items():
            for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high")):
                row[name + suffix] = _text(figure and figure[part])
        yield row


def _networks(bundle: dict) -> dict[str, str]:
    row = {"bytes": str(bundle["bytes"])}
    for role, model in bundle["models"].items():
        # A network of both roles was trained once, as what it is.
        trained: dict = next(
            (entry for entry in bundle["training_data"] if entry["role"] in (role, "multitask")), {}
        )
        values = {
            **{name: model[name] for name in _OF_ROLE if name in model},
            "precision": model["precision"] + ("+half" if model["weights"] == "half" else ""),
            "data_set": trained.get("data_set"),
            "pictures": trained.get("pictures", {}).get("train"),
            "split_sha256": trained.get("split_sha256", "")[:16],
            "seed": trained.get("seed"),
            "epochs": trained.get("epochs"),
            "steps": trained.get("steps"),
            "pretrained": trained.get("imagenet_weights"),
        }
        row |= {f"{role}_{name}": _text(value) for name, value in values.items()}
    return row


def _groups(result: dict, keys: Mapping[str, dict[str, str]]) -> Iterator[dict[str, str]]:
    groups: list[tuple[str, str, dict, dict]] = [
        (method["name"], f"class {label}", {"pictures": entry["count"]}, entry)
        for method in result["methods"]
        for label, entry in method.get("per_class", {}).items()
    ]
    # All others are of the networks alone.
    groups += [
        (NETWORKS, f"{SCALES[entry['scale']].name} {entry['group']}", entry, entry["metrics"])
        for entry in result["groups"]
    ]
    groups += [
        (NETWORKS, _gap_name(entry), entry, {entry["measure"]: entry}) for entry in result["gaps"]
    ]
    groups += [
        (NETWORKS, f"ood {kind}", {"pictures": entry["pictures"]}, entry)
        for kind, entry in (result["ood"] or {"kinds": {}})["kinds"].items()
    ]
    for method, name, about, figures in groups:
        for measure, figure in figures.items():
            if isinstance(figure, dict):
                few = about.get("too_few")
                yield {
                    **keys[method],
                    "group": name,
                    "measure": measure,
                    **{column: _text(about.get(column)) for column in _GROUP_COUNTS},
                    "judged": "" if few is None else "too few" if measure in few else "yes",
                    **{part: _text(figure[part]) for part in ("value", "low", "high")},
                }


_GROUP_COUNTS = ("pictures", "malignant", "benign")


def _gap_name(entry: dict) -> str:
    kind = GAP if entry["kind"] == "difference" else WORST
    return f"{kind}{SCALES[entry['scale']].name}: {' - '.join(entry['groups'])}"


def _first(methods: list[dict], task: str, name: str) -> int | None:
    return next((entry[name] for entry in methods if entry["task"] == task), None)


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
