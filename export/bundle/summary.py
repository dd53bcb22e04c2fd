"""What a bundle holds and reaches, for whoever exported it."""

from __future__ import annotations

from dermedge import DISCLAIMER
from dermedge.bundle.bundle import DEFAULT, Bundle
from dermedge.bundle.manifest import ROLES, Manifest


def summary(bundle: Bundle) -> list[str]:
    """Line by line; of a network that was taken from another bundle as that one says."""
    manifest = bundle.manifest
    lines = [f"{bundle.path}: {bundle.path.stat().st_size / 1e6:.1f} MB, {bundle.sha256[:12]}"]
    lines += [_network(manifest, role) for role in manifest.models]
    lines += _origins(manifest)
    if "segmenter" in manifest.measured:
        measured = manifest.measured["segmenter"]
        jaccard, limit = measured.get("jaccard"), manifest.thresholds.mask
        lines.append(f"{_where(measured)}: Jaccard {_shown(jaccard)}; threshold: mask {limit:g}")
    if "classifier" in manifest.measured:
        lines += _classifier(manifest)
    lines += [judged_line(report, _carried(manifest, report)) for report in manifest.gate]
    lines += [
        f"for evaluation only: the app needs a {role} too; `--with {DEFAULT}` takes the one that "
        "comes with dermedge"
        for role in ROLES
        if role not in manifest.models
    ]
    lines += [
        f"the training of the {entry['role']} stopped at step {entry['steps']} of "
        f"{entry['planned_steps']}: finish it and export again"
        for entry in manifest.training_data
        if not entry.get("finished", True)
    ]
    if manifest.procedural:
        lines.append("trained on generated pictures: it knows nothing of real skin")
    return [*lines, DISCLAIMER]


def _network(manifest: Manifest, role: str) -> str:
    model, parity = manifest.models[role], manifest.parity.get(role)
    count = "" if model.parameters is None else f"{model.parameters / 1e6:.2f} M parameters in "
    line = f"{role}: {model.architecture}, {model.preprocessing.size} px, {count}"
    line += f"{model.weights} precision"
    if parity is None:
        return line
    return (
        f"{line}; differs from the trained network by at most "
        f"{parity['max_abs_difference']:.1g} on {parity['count']} pictures"
    )


def _origins(manifest: Manifest) -> list[str]:
    """Which networks were taken from another bundle."""
    lines = []
    for entry in manifest.training_data:
        if origin := entry.get("from_bundle"):
            trained = f", trained on {entry['data_set']}" if "data_set" in entry else ""
            lines.append(
                f"the {entry['role']} is the one of the bundle {origin['name']} "
                f"({origin['sha256'][:12]}; licence {origin['licence']}{trained}): its figures are "
                "of that data, not of yours"
            )
    return lines


def _classifier(manifest: Manifest) -> list[str]:
    measured, limits = manifest.measured["classifier"], manifest.thresholds
    lines = [_classified(_where(measured), measured, measured.get("ece_before"))]
    if "without_metadata" in measured:
        lines.append(_classified("with the picture alone", measured["without_metadata"]))
    ood = "" if limits.unfamiliar is None else f", unfamiliar {limits.unfamiliar:g}"
    see_doctor = f"see a doctor {limits.see_doctor:g}, urgent {limits.urgent:g}"
    return [*lines, f"thresholds: {see_doctor}{ood}"]


def _where(measured: dict) -> str:
    half = measured.get("half")
    return f"{half} half of the validation part" if half else "validation part"


def _carried(manifest: Manifest, report: dict) -> bool:
    """Whether what was judged is in the bundle: one for a target leaves out the others."""
    models = [manifest.models[role] for role in report["roles"] if role in manifest.models]
    return any(
        graph.precision == report["precision"] and set(graph.targets) & set(report["targets"])
        for model in models
        for graph in (model.first, *model.variants)
    )


def judged_line(report: dict, carried: bool = True) -> str:
    """What the acceptance said of one precision of one network, in a line."""
    speed, measured = report.get("speed"), report.get("figures", {})
    fast = "speed not measured here"
    if speed:
        fast = f"{speed['ratio']:.2f} times as fast as FP32 ({speed['low']:.2f} to "
        fast += f"{speed['high']:.2f})"
    figures = [
        f"{name} {_number(figure['value'], '.4f')} ({_retained(figure['kept'])} of FP32)"
        for name, figure in measured.items()
        if isinstance(figure, dict) and "kept" in figure
    ]
    if "triage_agreement" in measured:
        figures.append(f"triage agrees on {_retained(measured['triage_agreement'])}")
    if few := measured.get("few_lesions"):
        each = ", ".join(f"{label} {count}" for label, count in few.items())
        figures.append(f"of few lesions, and not shown for each: {each}")
    passed = "in" if carried else "passed, but not in this bundle"
    verdict = passed if report["passed"] else f"REFUSED: {'; '.join(report['reasons'])}"
    size = f"{_number(report.get('share_of_fp32'), '.2f')} of FP32's size"
    # Of what gives no finite numbers there are no figures.
    words = "; ".join(filter(None, (verdict, ", ".join(figures), fast, size)))
    who = f"{report['precision']} {' and '.join(report['roles'])}"
    return f"{who} for {', '.join(report['targets'])}: {words}"


def _retained(interval: dict) -> str:
    value, low, high = (_number(interval[name], ".2%") for name in ("value", "low", "high"))
    return f"{value}, {low} to {high}"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _classified(where: str, measured: dict, ece_before: float | None = None) -> str:
    before = "" if ece_before is None else f"{ece_before:.3f} -> "
    return (
        f"{where}: AUC malignant {_shown(measured.get('auc_malignant'))}, "
        f"balanced accuracy {_shown(measured.get('balanced_accuracy'))}, "
        f"ECE {before}{_number(measured.get('ece'), '.3f')}"
    )


def _shown(figure: dict | None) -> str:
    """A figure with its interval; a bundle from elsewhere need state neither."""
    value, low, high = (_number((figure or {}).get(n), ".3f") for n in ("value", "low", "high"))
    return value if "unknown" in (low, high) else f"{value} ({low} to {high})"
