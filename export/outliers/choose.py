"""The limit of the head, and what it costs: on pictures of each source, fitted to it and not."""

from __future__ import annotations

import functools
import itertools
from dataclasses import asdict, dataclass, replace

import numpy as np

from dermedge.evaluation.metrics import wilson_interval
from dermedge.outlier import OutlierHead
from export import ExportError
from export.outliers.fit import SKIN, Pictures, fit_score, fit_usual, lowest_limit

LOST = 0.01  # of the usable and familiar good pictures of each source, and of their copies
LOST_ELSEWHERE = 0.02  # of all good pictures of a source that nothing was fitted to


@dataclass(frozen=True)
class Setting:
    """How a head is fitted, and what its scores weigh.

    things, skin : penalties of the two linear scores, as `fit_score` takes them. share : what the
    score of plain skin is divided by. reach : how many times as far as the 98th percentile a
    picture has to lie for a distance score of 1.
    """

    things: float
    skin: float
    share: float
    reach: float


SETTINGS = tuple(
    Setting(*one)
    for one in itertools.product((1e2, 1e4, 1e5), (3e1, 1e2, 1e3), (0.8, 1.0, 1.25), (1.0, 2.0))
)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The head with its limit, and the report of what it refuses, for a JSON file."""

    head: OutlierHead
    report: dict


def choose(training: Pictures, validation: Pictures, outliers: Pictures) -> Chosen:
    """Fit to the training part, choose the limit on the validation part, of two sources or more.

    The limit is the lowest that loses, of what would get an estimate without a head, at most LOST
    of each source's validation pictures and of their copies; and, of each source in turn, at most
    LOST_ELSEWHERE of its validation pictures by a head that was fitted without that source. The
    latter says what a clinic loses that no data set is of.

    Of SETTINGS the one is taken that refuses most of what the head was not fitted to: each kind of
    things left out in turn, and of each source in turn its plain skin, by the head that does not
    know the source. Nobody can fit to all that a camera may show. Of equals it is the one with the
    highest penalties.

    Raises ExportError where there is plain skin of less than two sources.
    """
    fits = _Fits(training, outliers)
    if len(fits.skin.names()) < 2:
        raise ExportError(
            "plain skin can be cut from beside the lesions of one data set at most: add one whose "
            "pictures show more of it"
        )
    unknown = {one: _unknown(fits, validation, one) for one in SETTINGS}
    tried = {one: float(np.mean(list(kinds.values()))) for one, kinds in unknown.items()}
    setting = max(SETTINGS, key=lambda one: (round(tried[one], 4), one.things, one.skin))
    fitted = _fitted(fits, validation, setting)
    limit = fitted.limit
    report = {
        "limit": limit,
        "chosen_by": max(fitted.limits, key=lambda name: fitted.limits[name]),
        "limits": fitted.limits,
        "setting": asdict(setting),
        "refused_of_unknown_kinds": [
            {**asdict(one), "refused": _rounded(share)} for one, share in tried.items()
        ],
        "kinds_left_out": {kind: _rounded(share) for kind, share in unknown[setting].items()},
        "training": _counts(training),
        "outliers": _counts(outliers),
        "lost": {
            name: _lost(fitted.scores[rows], validation.refused[rows], limit)
            for name, rows in _rows(validation).items()
        },
        "lost_elsewhere": {
            source: _lost(*seen, limit) for source, seen in fitted.elsewhere.items()
        },
    }
    return Chosen(replace(fitted.head, limit=np.array([limit], np.float32)), report)


class _Fits:
    """Heads of all settings; what two of them share is fitted once."""

    def __init__(self, training: Pictures, outliers: Pictures):
        self._training = training
        self.sources = training.names()
        skin = np.char.startswith(outliers.groups, SKIN)
        self.things, self.skin = outliers[~skin], outliers[skin]
        self._usual = functools.cache(lambda without: fit_usual(self._good(without)))
        self._of_things = functools.cache(self._fit_things)
        self._of_skin = functools.cache(self._fit_skin)

    def head(self, setting: Setting, without: str = "", kind: str = "") -> OutlierHead:
        """The head that knows neither a source nor a kind of things, as a device has it."""
        rows = [
            self._of_things(setting.things, without, kind),
            self._of_skin(setting.skin, without) / setting.share,
        ]
        usual = self._usual(without)
        spread = usual.spread * np.array([1, setting.reach])
        head = replace(usual, weights=np.stack(rows), spread=spread)
        return OutlierHead.from_bytes(head.to_bytes(), usual.mean.size)

    def _good(self, without: str) -> Pictures:
        return self._training[self._training.groups != without]

    def _fit_things(self, penalty: float, without: str, kind: str) -> np.ndarray:
        things = self.things[self.things.groups != kind]
        return fit_score(self._usual(without), self._good(without), things, penalty)

    def _fit_skin(self, penalty: float, without: str) -> np.ndarray:
        skin = self.skin[self.skin.groups != f"{SKIN}{without}"]
        return fit_score(self._usual(without), self._good(without), skin, penalty)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A head without its limit, and what the limit has to let pass."""

    head: OutlierHead
    without: dict[str, OutlierHead]  # by source, the head that does not know it
    scores: np.ndarray  # float (n,), of the validation pictures
    # Scores of each source's pictures by the head that does not know it, and which were refused.
    elsewhere: dict[str, tuple[np.ndarray, np.ndarray]]
    limits: dict[str, float]  # the lowest that each condition allows

    @property
    def limit(self) -> float:
        return max(self.limits.values())


def _fitted(fits: _Fits, validation: Pictures, setting: Setting, kind: str = "") -> _Fitted:
    head = fits.head(setting, kind=kind)
    without = {source: fits.head(setting, source, kind) for source in fits.sources}
    scores = head.score(validation.evidence)
    limits = {}
    for name, rows in _rows(validation).items():
        usable = rows & ~validation.refused
        limits[name] = lowest_limit(scores[usable], validation.refused[usable], LOST)
    elsewhere = {}
    for source, other in without.items():
        rows = (validation.groups == source) & ~validation.again
        elsewhere[source] = other.score(validation.evidence[rows]), validation.refused[rows]
        limits[f"{source}, left out"] = lowest_limit(*elsewhere[source], LOST_ELSEWHERE)
    return _Fitted(head, without, scores, elsewhere, limits)


def _unknown(fits: _Fits, validation: Pictures, setting: Setting) -> dict[str, float]:
    """Kind of things, or plain skin of a source, to the share of it that gets no estimate.

    By a head that does not know that kind, or that source.
    """
    seen = {}
    for kind in fits.things.names():
        fitted = _fitted(fits, validation, setting, kind)
        things = fits.things[fits.things.groups == kind]
        seen[kind] = _refused(fitted.head, fitted.limit, things)
    fitted = _fitted(fits, validation, setting)
    for source, head in fitted.without.items():
        skin = fits.skin[fits.skin.groups == f"{SKIN}{source}"]
        if len(skin):
            seen[f"{SKIN}{source}"] = _refused(head, fitted.limit, skin)
    return seen


def _refused(head: OutlierHead, limit: float, pictures: Pictures) -> float:
    beyond = head.score(pictures.evidence) > limit
    return float((beyond | pictures.refused).mean())


def _rows(pictures: Pictures) -> dict[str, np.ndarray]:
    """Which pictures are of each source as they are, and which are copies of its pictures."""
    return {
        f"{source}, copies" if again else source: (pictures.groups == source)
        & (pictures.again == again)
        for source in pictures.names()
        for again in (False, True)
    }


def refused_of_each_kind(head: OutlierHead, others: Pictures) -> dict[str, dict]:
    """Of each kind of pictures without a lesion: how many get no estimate, without and with it."""
    beyond = head.score(others.evidence) > head.limit[0]
    found = {}
    for kind in others.names():
        rows = others.groups == kind
        share = float((beyond | others.refused)[rows].mean())
        interval = wilson_interval(share, int(rows.sum()))
        found[kind] = {
            "pictures": int(rows.sum()),
            "without": _rounded(float(others.refused[rows].mean())),
            "refused": [_rounded(v) for v in (interval.value, interval.low, interval.high)],
        }
    return found


def _lost(scores: np.ndarray, refused: np.ndarray, limit: float) -> dict:
    """Shares of good pictures that get no estimate: without a head, and how many more with it."""
    more = (scores > limit) & ~refused
    # The head refuses more and never less: a share, and no difference that may be below 0.
    interval = wilson_interval(float(more.mean()) if len(more) else 0.0, len(more))
    return {
        "pictures": len(more),
        "without": _rounded(float(refused.mean())) if len(more) else None,
        "more": [_rounded(v) for v in (interval.value, interval.low, interval.high)],
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _counts(pictures: Pictures) -> dict[str, int]:
    return {name: int((pictures.groups == name).sum()) for name in pictures.names()}
