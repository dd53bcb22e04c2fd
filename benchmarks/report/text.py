"""Results for people, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks import PROCEDURAL
from benchmarks.schema.bench_result import ENERGY, WARMUP
from benchmarks.schema.names import EXECUTION_MEASURES, GROUP_MINIMUM, OTSU, OTSU_METHOD
from dermedge.data.groups import SCALES


def evaluation(result: dict) -> str:
    """What `dermedge evaluate` prints."""
    data, how = result["data"], result["intervals"]
    subset = f", a fixed subset of {data['pictures']}" if data["limit"] else ""
    kept = f" ({data['subset']})" if data["subset"] else ""
    lines = [
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}{kept}: "
        f"{data['evaluated']} pictures{subset}; split: {data['split']}",
        *([PROCEDURAL] if result["bundle"]["procedural"] else []),
        *_how_it_ran(result),
        f"95 % intervals: bootstrap over {how['clusters']}, {how['resamples']} resamples; of "
        "shares that are 0 or 1 Wilson's",
    ]
    for method in result["methods"]:
        lines += _method(method, result["labels"])
    if result["differences"]:
        lines += ["", "difference to the baseline (95 % interval)"]
    for entry in result["differences"]:
        lines.append(f"  {entry['metric']:<30}{figure(entry, '+')}  networks - {entry['baseline']}")
    lines += _people(result)
    lines += [*_out_of_distribution(result), ""]
    if result["triage"]:
        lines.append("advice: " + ", ".join(f"{k} {v}" for k, v in result["triage"].items()))
    lines += outside(data)
    return "\n".join([*lines, *_unread_and_warnings(result)])


def outside(data: dict) -> list[str]:
    """What became of the pictures whose class the bundle does not know."""
    unknown = data.get("outside_unknown", 0)
    known = data.get("outside_labels", 0) - unknown
    pictures = "pictures of classes that the bundle does not know"
    lines = [f"{known} {pictures}: counted for malignancy only"] if known else []
    if unknown:
        lines.append(
            f"{unknown} {pictures}, and not stated as malignant or benign: in no figure of classes "
            "or malignancy"
        )
    return lines


def _how_it_ran(result: dict) -> Iterator[str]:
    """How the networks were run, where that is not the plain way."""
    if result["views"] > 1:
        yield f"test-time augmentation: mean of {result['views']} mirrored views"
    if result["metadata"]["accepted"]:
        yield f"used beside the picture: {', '.join(result['metadata']['used']) or 'nothing'}"


def _method(method: dict, labels: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"{method['task']}: {method['name']} ({method['count']} pictures)"
    if "trained_on" in method:
        yield f"  fitted on {method['trained_on']} pictures of the train part"
    if method["name"] == OTSU:
        yield f"  {OTSU_METHOD}"
    yield from (f"  {name:<30}{figure(value)}" for name, value in method["metrics"].items())
    for label, entry in method.get("per_class", {}).items():
        shown = "; ".join(
            f"{name} {figure(entry[name])}" for name in ("auc", "sensitivity", "specificity")
        )
        yield f"  {label:<6}{entry['count']:>5} pictures; {shown}"
    if method.get("confusion"):
        yield "  confusion, rows true: " + " ".join(labels)
        for label, counts in zip(labels, method["confusion"], strict=True):
            yield f"    {label:<8}" + "".join(f"{count:>6}" for count in counts)


def _people(result: dict) -> Iterator[str]:
    """Groups of people, scale by scale, and how far they are apart."""
    for scale in SCALES.values():
        groups = [group for group in result["groups"] if group["scale"] == scale.field]
        if not groups:
            continue
        yield ""
        yield f"by {scale.title}, networks of the bundle"
        for group in groups:
            shown = "".join(
                f"; {name} {figure(value)}"
                + (f" (too few: under {GROUP_MINIMUM})" if name in group["too_few"] else "")
                for name, value in group["metrics"].items()
            )
            benign = "" if group["benign"] is None else f", {group['benign']} benign"
            yield (
                f"  {group['group']:<12}{group['pictures']:>5} pictures, {group['malignant']} "
                f"malignant{benign}{shown}"
            )
        gaps = [gap for gap in result["gaps"] if gap["scale"] == scale.field]
        for gap in gaps:
            what = {"difference": " minus ".join(gap["groups"]), "worst": "the worst group"}
            sign = "+" if gap["kind"] == "difference" else "-"
            named = f" ({gap['groups'][0]})" if gap["kind"] == "worst" else ""
            yield f"  {gap['measure']}, {what[gap['kind']]}{named}: {figure(gap, sign)}"
        if not gaps:
            yield "  no gap: fewer than two groups can be judged"


def _out_of_distribution(result: dict) -> Iterator[str]:
    if result["ood_flagged"]:
        yield ""
        yield f"marked as out of distribution: {figure(result['ood_flagged'])}"
    if ood := result["ood"]:
        unread = ood.get("unreadable")
        beside = f" (not read: {unread})" if unread else ""
        yield f"pictures of {ood['folder']}, which show no lesion{beside}"
        for kind, entry in {"all": ood, **ood["kinds"]}.items():
            yield (
                f"  {kind:<12}{entry['pictures']:>5} pictures; auc of the distance "
                f"{figure(entry['auc'])}; marked {figure(entry['flagged'])}; no estimate given "
                f"{figure(entry['retaken'])}"
            )


def unread_and_warnings(unread: Sequence[dict], warnings: Sequence[str]) -> Iterator[str]:
    """What a person has to know of the pictures, beside the figures."""
    for entry in unread:
        yield f"not read: {entry['id']}: {entry['error']}"
    yield from (f"warning: {warning}" for warning in warnings)


def _unread_and_warnings(result: dict) -> Iterator[str]:
    return unread_and_warnings(result["data"]["unreadable"], result["warnings"])


def figure(metric: dict | None, sign: str = "-") -> str:
    """A figure and its interval, where it has them."""
    if metric is None or metric["value"] is None:
        return "-"
    value, low, high = (metric[key] for key in ("value", "low", "high"))
    if low is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def executions(results: Sequence[dict]) -> str:
    """What `dermedge evaluate --executions` prints."""
    lines = ["precisions and runtimes; differences to the first, 95 % intervals"]
    for entry in results:
        fast = entry.get("times_as_fast")
        lines.append(
            f"  {entry['execution']}"
            + (f": {entry['reason']}" if entry["reason"] else "")
            + (
                f": {entry['p50_ms']:.2f} ms, {fast['ratio']:.2f} times as fast as the first "
                f"({fast['low']:.2f} to {fast['high']:.2f})"
                if fast
                else ""
            )
        )
        for measured in entry["figures"]:
            value, change = measured["value"], measured["difference"]
            sides = measured["difference_low"], measured["difference_high"]
            lines.append(
                f"    {measured['group']:<17}{EXECUTION_MEASURES[measured['measure']]:<50}"
                + ("-" if value is None else f"{value:.4f}")
                + (f", {change:+.4f}" if change is not None else "")
                + (" ({:+.4f} to {:+.4f})".format(*sides) if None not in sides else "")
            )
    return "\n".join(lines)


def bench(result: dict) -> str:
    """What `dermedge bench` prints."""
    hardware = result["hardware"]
    lines = [f"{result['bundle']['name']} on {hardware['cpu'] or hardware['machine']}"]
    if result["bundle"]["procedural"]:
        lines.append(PROCEDURAL)
    rounds = f"{result['settings']['runs']} rounds after {WARMUP} uncounted analyses of each"
    lines.append(("quick run, " if result["quick"] else "") + rounds)
    for name in dict.fromkeys(row["picture"] for row in result["latency"]):
        lines += ["", name, f"  {'threads':>7}  {'stage':<12}{'p50':>9}{'p90':>9}{'p99':>9}  ms"]
        for row in result["latency"]:
            if row["picture"] == name:
                lines.append(
                    f"  {row['threads']:>7}  {row['stage']:<12}{row['p50_ms']:>9.2f}"
                    f"{row['p90_ms']:>9.2f}{row['p99_ms']:>9.2f}"
                )
    lines.append("")
    for row in result["scenarios"] or []:
        speed = (
            f"{row['samples_per_second']:.1f} a second"
            if row["scenario"] == "Offline"
            else f"p90 {row['p90_ms']:.2f} ms (early stopping {row['early_stopping_p90_ms']})"
        )
        lines.append(
            f"{row['scenario']} ({row['generator']}), {row['what']}, threads {row['threads']}: "
            f"{speed}; {row['queries']} queries, {row['seconds']:.0f} s"
            + ("" if row["valid"] else ", NOT VALID by MLPerf's rules")
        )
    if passes := result["repeatability"]:
        apart = max(case["apart"] for case in passes["cases"])
        lines.append(f"p90 of two passes at most {100 * apart:.1f} % apart")
    slowest, last = max(part["ratio"] for part in result["course"]), result["course"][-1]["ratio"]
    lines.append(f"over time: slowest {slowest:.2f}, at the end {last:.2f} of the median")
    if found := result["comparison"]:
        lines.append(
            f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f}) times as fast as "
            f"{found['other']['name']} ({found['p50_ms']:.1f} against {found['other_p50_ms']:.1f} "
            f"ms, {found['turns']} turns, threads {found['threads']})"
        )
    if spent := result["energy"]:
        joules = spent["joules_per_analysis"]
        lines.append(f"energy {1000 * joules:.1f} mJ per analysis ({spent['source']})")
    elif ENERGY not in result["missing"]:
        lines.append("energy: not measured (this device does not tell)")
    for row in result["cold_start"]:
        lines.append(
            f"cold start to the first result {np.median(row['seconds']):.2f} s, peak memory "
            f"{row['peak_bytes'] / 1e6:.0f} MB: {row['picture']}"
        )
    size = result["bundle"]
    models = ", ".join(f"{model['role']} {model['bytes'] / 1e6:.2f} MB" for model in size["models"])
    lines.append(f"bundle {size['bytes'] / 1e6:.2f} MB ({models})")
    if result["networks_bytes"] is not None:
        lines.append(f"the networks in memory: {result['networks_bytes'] / 1e6:.0f} MB")
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    doubts = result["not_comparable"]
    lines += [f"NOT COMPARABLE: {doubt}" for doubt in doubts]
    return "\n".join(lines)


def part_of(data: dict) -> str:
    """On which pictures a measurement on corrupted ones was made."""
    kept = data.get("subset")  # results of 0.2.0 and before have none
    return f"{data['name']}, part {data['part']}" + (f" ({kept})" if kept else "")


def robustness(result: dict) -> str:
    """What `dermedge robustness` prints."""
    data = result["data"]
    lines = [
        f"{result['bundle']['name']} on {part_of(data)}: "
        f"{data['pictures']} pictures; 95 % intervals over {result['intervals']['clusters']}"
    ]
    for curve in result["curves"].values():
        lines += ["", curve["title"]]
        for entry in curve["levels"]:
            shown = [
                f"{measure.replace('_', ' ')} {figure(entry[measure])}"
                for measure in ("jaccard", "malignant_auc", "retake", "same_advice")
                if measure in entry
            ]
            lines.append(f"  {entry['level']!s:>6}  " + "; ".join(shown))
    if repeats := result["repeats"]:
        lines += [
            "",
            f"{repeats['lesions']} lesions with several pictures ({repeats['pictures']}): the same "
            f"advice for all of a lesion's {figure(repeats['same_advice'])}, range of its risk "
            f"{figure(repeats['risk_range'])}",
        ]
        if "single_auc" in repeats:
            lines.append(
                f"of {repeats['known']} of them it is known whether they are malignant: AUC of "
                f"single pictures {figure(repeats['single_auc'])}, of the mean of a lesion's "
                f"{figure(repeats['together_auc'])}, difference "
                f"{figure(repeats['auc_difference'])}"
            )
    return "\n".join([*lines, *_unread_and_warnings(result)])


def quality(result: dict) -> str:
    """What `dermedge quality` prints."""
    data = result["data"]
    lines = [
        f"quality check, {result['bundle']['name']} on {part_of(data)}: "
        f"{data['pictures']} pictures ({data['with_mask']} with a mask); 95 % intervals over "
        f"{result['intervals']['clusters']}",
        "",
        "unusable against uncorrupted pictures",
    ]
    for name, group in (*result["groups"].items(), ("overall", result["overall"])):
        lines.append(
            f"  {name:<8} {group['corrupted']:>6} pictures; AUC {figure(group['auc'])}; "
            f"refused {figure(group['refused'])}"
        )
    lines += ["", "false alarms on uncorrupted pictures"]
    for name, share in result["false_alarms"].items():
        typical = f"; score {result['good'][name]}" if name in result["good"] else ""
        lines.append(f"  {name:<16} {figure(share)}{typical}")
    for corruption in result["corruptions"].values():
        lines += ["", f"{corruption['title']} ({', '.join(corruption['reasons'])})"]
        for entry in corruption["levels"]:
            shown = "".join(
                f"; {measure} {figure(entry[measure])}"
                for measure in ("auc", "reported", "refused")
                if measure in entry
            )
            mark = "*" if entry["unusable"] else " "
            lines.append(f" {mark}{entry['level']!s:>6} {entry['pictures']:>5} pictures{shown}")
    lines += ["", "* has to be taken again"]
    return "\n".join([*lines, *_unread_and_warnings(result)])
