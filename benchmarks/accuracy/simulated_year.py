"""A simulated year of active learning: what labels bring, by how they are chosen.

    python -m benchmarks.accuracy.simulated_year --data pad_ufes_20=DIR --out FILE.json
        [--part test --strategies random NAME] [--figure FILE.png]

Features are those of the bundle `dermoscopy`, which has seen no picture of PAD-UFES-20. On them a
multinomial logistic head is fitted again each month to what is labelled by then. Patients of the
training part arrive in twelve months, in an order of each seed's own; each month `--monthly`
pictures of all that have arrived are labelled. The AUC is of malignancy, over the pictures of
`--part`. Strategies are compared on "val"; "test" is for the one that was chosen there.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from dermedge import UserError, acquisition
from dermedge.bundle.bundle import Bundle, shipped
from dermedge.cli import call
from dermedge.data import Record, load, make_split, parse_source
from dermedge.data.fingerprint import of_bytes
from dermedge.evaluation.provenance import commit, cpu_name, usable_cores
from dermedge.files import check_writable, write_atomic

BUNDLE = "dermoscopy"
MONTHS, FIRST = 12, 20  # pictures labelled before the first month
STRATEGIES = ("random", "margin", "entropy", "malignancy", "k-center", "product")
PENALTY = 0.01  # C of scikit-learn, on standardised features
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures of one part: features float (N, E), class (N,), malignant (N,), patient (N,)."""

    features: np.ndarray
    classes: np.ndarray
    malignant: np.ndarray
    patients: np.ndarray


def read_features(records: Sequence[Record], cache: Path, bundle: Bundle) -> np.ndarray:
    """The classifier's embeddings, float32 (N, E); kept in `cache` by bundle and the files' bytes.

    UserError where `cache` is another file, which would be lost, or a damaged one.
    """
    from dermedge.analyzer import Analyzer

    files = of_bytes(records).files  # other copies of pictures have the same ids
    if cache.is_file():
        try:
            with np.load(cache) as stored:
                same = str(stored["bundle"]) == bundle.sha256
                same = same and stored["files"].tolist() == files.tolist()
                features = np.asarray(stored["features"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            raise UserError(
                f"{cache} holds no features of a simulated year, or is damaged: give another "
                "--features, or delete it"
            ) from None
        if same:
            return features
    analyzer = Analyzer(bundle)
    found = []
    for record in records:
        embedding = analyzer.analyze(record.image).embedding
        assert embedding is not None
        found.append(embedding)
    features = np.stack(found)
    buffer = io.BytesIO()
    np.savez(buffer, features=features, files=files, bundle=np.array(bundle.sha256))
    write_atomic(cache, buffer.getvalue())
    return features


def simulate(train: Pool, part: Pool, strategy: str, seed: int, monthly: int) -> np.ndarray:
    """Malignancy of the part's pictures after each month, float (MONTHS + 1, n)."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(train.patients))
    arrival = {who: at * MONTHS // len(people) for at, who in enumerate(people)}
    month_of = np.array([arrival[who] for who in train.patients])
    labelled = rng.permutation(np.flatnonzero(month_of == 0))[:FIRST].tolist()
    rows = []
    for month in range(MONTHS + 1):
        here = month_of < max(month, 1)
        head = Head(train, labelled, here)
        rows.append(head.malignancy(part.features))
        if month == MONTHS:
            break
        here = month_of <= month
        open_ = np.setdiff1d(np.flatnonzero(here), labelled)
        labelled += choose(strategy, head, train, open_, labelled, monthly, rng).tolist()
    return np.stack(rows)


def choose(
    strategy: str,
    head: Head,
    train: Pool,
    candidates: np.ndarray,
    labelled: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Positions in `train` of `count` of the candidates."""
    if strategy == "random":
        return rng.permutation(candidates)[:count]
    scaled, known = head.scaled(train.features[candidates]), head.scaled(train.features[labelled])
    if strategy == "k-center":
        return candidates[acquisition.k_center(scaled, known, count)]
    probabilities = head.probabilities(train.features[candidates])
    if strategy == "product":
        return candidates[acquisition.ask_first(probabilities, scaled, known, count)]
    if strategy == "malignancy":
        doubt = -np.abs(head.malignancy(train.features[candidates]) - 0.5)
    else:
        doubt = getattr(acquisition, strategy)(probabilities)
    return candidates[np.argsort(-doubt, kind="stable")[:count]]


class Head:
    """A logistic head on what is labelled; features are standardised by all that are here."""

    def __init__(self, train: Pool, labelled: Sequence[int], here: np.ndarray):
        from sklearn.linear_model import LogisticRegression

        seen = train.features[here]
        self._mean, self._std = seen.mean(axis=0), seen.std(axis=0) + 1e-6
        self._model = LogisticRegression(C=PENALTY, max_iter=300)
        self._model.fit(self.scaled(train.features[labelled]), train.classes[labelled])
        bad = dict(zip(train.classes.tolist(), train.malignant.tolist(), strict=True))
        self._bad = np.array([bad[name] for name in self._model.classes_.tolist()])

    def scaled(self, features: np.ndarray) -> np.ndarray:
        return np.asarray((features - self._mean) / self._std)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self._model.predict_proba(self.scaled(features)))

    def malignancy(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(self.probabilities(features)[:, self._bad].sum(axis=1))


@dataclass(frozen=True, eq=False)
class Year:
    """All seeds of one strategy: wins float32 (MONTHS + 1, seeds, malignant, benign), 1 where the
    malignant picture has the higher risk, half where both have the same."""

    wins: np.ndarray

    def curve(self, seeds: np.ndarray, bad: np.ndarray, good: np.ndarray) -> np.ndarray:
        """AUC after each month, where seeds and pictures weigh so much: float (MONTHS + 1,)."""
        sums = np.einsum("mspn,n->msp", self.wins, good, optimize=True) @ bad @ seeds
        return np.asarray(sums / (seeds.sum() * bad.sum() * good.sum()))


def compared(scores: np.ndarray, malignant: np.ndarray) -> Year:
    """From malignancy float (seeds, MONTHS + 1, n)."""
    bad, good = scores[..., malignant], scores[..., ~malignant]
    gap = bad[..., :, None] - good[..., None, :]
    wins = (gap > 0).astype(np.float32) + 0.5 * (gap == 0).astype(np.float32)
    return Year(wins.transpose(1, 0, 2, 3))


def needed(curve: np.ndarray, goal: float, monthly: int) -> float:
    """Labels after which a curve first reaches `goal`, straight between months; inf: never."""
    above = np.flatnonzero(curve >= goal)
    if not len(above):
        return float("inf")
    at = int(above[0])
    if at == 0:
        return float(FIRST)
    share = (goal - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(FIRST + monthly * (at - 1 + share))


def summary(years: dict[str, Year], part: Pool, monthly: int, resamples: int) -> dict[str, object]:
    """Curves, differences to random and labels needed, with 95 % intervals over seeds and patients.

    Both are drawn again with replacement, together for all strategies, so differences are paired.
    """
    rng = np.random.default_rng(0)
    seeds = next(iter(years.values())).wins.shape[1]
    people, whose = np.unique(part.patients, return_inverse=True)

    def drawn(first: bool) -> dict[str, np.ndarray]:
        if first:
            by_seed, by_person = np.ones(seeds), np.ones(len(people))
        else:
            by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds)).astype(float)
            every = np.full(len(people), 1 / len(people))
            by_person = rng.multinomial(len(people), every).astype(float)
        weights = by_person[whose].astype(np.float32)
        bad, good = weights[part.malignant], weights[~part.malignant]
        return {name: year.curve(by_seed, bad, good) for name, year in years.items()}

    found = drawn(True)
    again = [drawn(False) for _ in range(resamples)]
    lines: dict[str, object] = {}
    for name in years:
        labels = [needed(one[name], one["random"][-1], monthly) for one in again]
        low, high = np.quantile(labels, (0.025, 0.975), method="nearest")
        lines[name] = {
            "auc": _rounded(found[name]),
            "auc_interval": _interval(np.array([one[name] for one in again])),
            "end_over_random": round(float(found[name][-1] - found["random"][-1]), 4),
            "end_over_random_interval": _interval(
                np.array([one[name][-1] - one["random"][-1] for one in again])
            ),
            "mean_over_random": round(float((found[name] - found["random"]).mean()), 4),
            "mean_over_random_interval": _interval(
                np.array([(one[name] - one["random"]).mean() for one in again])
            ),
            "labels_for_randoms_end": _finite(needed(found[name], found["random"][-1], monthly)),
            "labels_for_randoms_end_interval": [_finite(low), _finite(high)],
        }
    return lines


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in np.atleast_1d(values)]


def _interval(draws: np.ndarray) -> list[list[float]]:
    return [_rounded(side) for side in np.quantile(draws, (0.025, 0.975), axis=0)]


def _finite(value: float) -> float | None:
    """None: not within the year."""
    return round(float(value), 1) if np.isfinite(value) else None


def draw(result: dict, path: Path) -> None:
    """The curves as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = FIRST + result["monthly"] * np.arange(MONTHS + 1)
    for name, line in result["strategies"].items():
        (drawn,) = axes.plot(labels, line["auc"], marker="o", markersize=3, label=name)
        if name == "random":
            low, high = line["auc_interval"]
            axes.fill_between(labels, low, high, alpha=0.15, color=drawn.get_color(), linewidth=0)
    axes.axhline(result["all_labelled"], color="0.4", linestyle=":", linewidth=1)
    axes.annotate(
        f"all {result['train_pictures']} labelled", (labels[0], result["all_labelled"]),
        xytext=(0, 3), textcoords="offset points", fontsize=8, color="0.3",
    )  # fmt: skip
    axes.set_xlabel("labelled pictures")
    axes.set_ylabel(f"AUC of malignancy, {result['part']} part")
    axes.set_title(
        f"{result['data']}, {result['seeds']} simulated years; band: 95 % of random", fontsize=10
    )
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path)


def run(args: argparse.Namespace) -> dict:
    """Simulate, and return what is written."""
    name, path = parse_source(args.data)
    data_set = load(name, path)
    stated = sorted((r for r in data_set.records if r.diagnosis), key=lambda record: record.id)
    records = [record for record in stated if record.malignant is not None]
    if left_out := len(stated) - len(records):
        print(f"left out: {left_out} pictures, of which it is not known whether they are malignant")
    split = make_split(data_set)
    for part_name in ("train", args.part):
        ids = set(split.parts[part_name])
        if len({record.malignant for record in records if record.id in ids}) < 2:
            raise UserError(f"the {part_name} part of {name} lacks malignant or benign pictures")
    bundle = Bundle.open(shipped()[BUNDLE])
    features = read_features(records, Path(args.features), bundle)
    place = {record.id: at for at, record in enumerate(records)}

    def pool(part: str) -> Pool:
        ids = [place[i] for i in split.parts[part] if i in place]
        mine = [records[i] for i in ids]
        return Pool(
            features[ids],
            np.array([record.diagnosis for record in mine]),
            np.array([bool(record.malignant) for record in mine]),
            np.array([record.patient_id or record.id for record in mine]),
        )

    train, part = pool("train"), pool(args.part)
    years = {}
    for strategy in args.strategies:
        seeds = range(args.seeds)
        scores = np.stack([simulate(train, part, strategy, s, args.monthly) for s in seeds])
        years[strategy] = compared(scores, part.malignant)
        print(f"{strategy}: simulated {args.seeds} years", flush=True)
    everything = np.arange(len(train.classes))
    whole = Head(train, everything.tolist(), np.ones(len(everything), bool))
    top = compared(whole.malignancy(part.features)[None, None], part.malignant)
    ones = np.ones(1), np.ones(part.malignant.sum()), np.ones((~part.malignant).sum())
    return {
        "command": "python -m benchmarks.accuracy.simulated_year "
        f"--data {name}={shlex.quote(Path(path).resolve().name)} "
        f"--out {shlex.quote(Path(args.out).name)} "
        f"--part {args.part} --strategies {' '.join(args.strategies)} "
        f"--seeds {args.seeds} --monthly {args.monthly} --resamples {args.resamples}",
        "date": date.today().isoformat(),
        "commit": commit("+"),
        "processor": cpu_name() or platform.machine(),
        "cores": usable_cores(),
        "data": name,
        "bundle": BUNDLE,
        "bundle_sha256": bundle.sha256,
        "split_sha256": split.sha256,
        "part": args.part,
        "pictures": len(part.classes),
        "left_out": left_out,
        "malignant": int(part.malignant.sum()),
        "train_pictures": len(everything),
        "seeds": args.seeds,
        "first": FIRST,
        "monthly": args.monthly,
        "all_labelled": round(float(top.curve(*ones)[0]), 4),
        "strategies": summary(years, part, args.monthly, args.resamples),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.simulated_year",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, metavar="pad_ufes_20=DIR", help="the data set")
    parser.add_argument("--out", required=True, metavar="FILE.json", help="the figures")
    parser.add_argument(
        "--features",
        default="features.npz",
        metavar="FILE.npz",
        help="where they are kept (default: features.npz)",
    )
    parser.add_argument(
        "--part", default="val", choices=("val", "test"), help="measured on (default: val)"
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME",
        default=STRATEGIES,
        choices=STRATEGIES,
        help=f"{', '.join(STRATEGIES)} (default: all); random always",
    )
    parser.add_argument(
        "--seeds", type=int, default=40, metavar="N", help="years of each order (default: 40)"
    )
    parser.add_argument(
        "--monthly", type=int, default=10, metavar="N", help="pictures labelled (default: 10)"
    )
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help=f"of the intervals (default: {RESAMPLES})",
    )
    parser.add_argument("--figure", metavar="FILE.png", help="the curves as a picture")
    args = parser.parse_args(arguments)
    for name in ("seeds", "monthly", "resamples"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    stored = Path(args.features).is_file()
    for file in filter(None, (args.out, args.figure, None if stored else args.features)):
        check_writable(file)  # said before all the work
    args.strategies = list(dict.fromkeys(["random", *args.strategies]))
    result = run(args)
    write_atomic(Path(args.out), json.dumps(result, indent=1) + "\n")
    if args.figure:
        draw(result, Path(args.figure))
    return 0


if __name__ == "__main__":
    raise SystemExit(call(main))
