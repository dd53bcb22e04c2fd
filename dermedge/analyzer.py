"""From a picture to a decision: quality, lesion, class probabilities, risk, triage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dermedge import DISCLAIMER, __version__
from dermedge.bundle import CASES, ROLES, Bundle, BundleError, Manifest, Thresholds
from dermedge.cases import Case, Cases
from dermedge.image import Picture, read_image
from dermedge.lesion import Lesion, measure
from dermedge.metadata import encode, width
from dermedge.preprocess import Placement, prepare, working
from dermedge.quality import SIDE, Quality, assess
from dermedge.runtime import Road, SessionError, open_session, target
from dermedge.scale import ScaleError, find
from dermedge.taxonomy import MALIGNANT

OUTPUTS = {"segmenter": "mask", "classifier": "probabilities"}
TRIAGE = ("retake", "low", "see a doctor", "urgent")
SIMILAR = 3  # cases shown
# Axes of the square input that test-time augmentation mirrors; the picture as it is comes first.
_VIEWS = ((), (1,), (0,), (0, 1))


# Code of a rule: what it says, in English. A screen translates it by its values.
RULES = {
    "urgent": "malignancy {malignancy} >= urgent threshold {limit}",
    "see a doctor": "malignancy {malignancy} >= see a doctor threshold {limit}",
    "low": "malignancy {malignancy} < see a doctor threshold {limit}",
    "quality": "picture quality: {reasons}",
    "unfamiliar": "unlike the pictures the model learnt from (distance {distance} > threshold "
    "{limit})",
}


@dataclass(frozen=True)
class Rule:
    """What led to a triage: one of RULES and its values, of which `str` makes the English text."""

    code: str
    values: dict[str, object]  # numbers, or codes of dermedge.quality.TITLES

    def __str__(self) -> str:
        digits = 2 if self.code == "unfamiliar" else 3
        return RULES[self.code].format(
            **{
                name: f"{value:.{digits}f}" if isinstance(value, float) else ", ".join(value)
                for name, value in self.values.items()
            }
        )

    def to_json(self) -> dict:
        """What `analysis.schema.json` describes as 'because'."""
        values = {
            name: round(value, 4) if isinstance(value, float) else list(value)
            for name, value in self.values.items()
        }
        return {"code": self.code, "values": values}


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found in one picture. Coordinates are px of the whole picture, oriented upright."""

    image: str
    height: int
    width: int
    quality: Quality
    lesion: Lesion
    scale: dict[str, object] | None  # 'reference', 'px_per_mm' or None, 'reason'; None: none asked
    probabilities: dict[str, float]  # class: calibrated probability, sum 1
    likely: str  # the most likely class, after the bundle's class offsets
    malignancy: float  # sum over the malignant classes
    distance: float | None  # from the training pictures, about 1 for those; None: not known
    unfamiliar: bool  # farther than `threshold`
    threshold: float | None  # of the distance; None: none was chosen
    activation: np.ndarray | None  # float32 (K, h, w), class scores over the classifier's input
    placement: Placement  # of the picture, as it was read, in the classifier's input
    embedding: np.ndarray | None  # float32 (E,)
    similar: tuple[Case, ...]  # training cases that the bundle carries, the most similar first
    triage: str  # one of TRIAGE
    because: Rule  # what led to the triage
    timing_ms: dict[str, float]  # stage: ms; 'total' is the whole call
    versions: dict[str, object]

    @property
    def rule(self) -> str:
        """What led to the triage, in words."""
        return str(self.because)

    def to_json(self) -> dict:
        """The object that `analysis.schema.json` describes."""
        lesion = self.lesion
        return {
            "image": self.image,
            "size": [self.width, self.height],
            "quality": {
                "ok": self.quality.ok,
                "usable": self.quality.usable,
                "reasons": list(self.quality.reasons),
                "scores": {name: round(v, 4) for name, v in self.quality.scores.items()},
            },
            "lesion": {
                "found": lesion.found,
                "box": list(lesion.box) if lesion.box else None,
                "polygons": [polygon.tolist() for polygon in lesion.polygons],
                "area_px": lesion.area_px,
                "centroid": lesion.centroid and [round(value, 1) for value in lesion.centroid],
            },
            "abcd": {
                "asymmetry": lesion.asymmetry,
                "border": lesion.border,
                "color": lesion.color,
                "diameter_mm": lesion.diameter_mm,
                "asymmetry_index": lesion.asymmetry_index,
                "border_irregularity": lesion.border_irregularity,
                "colors": list(lesion.colors),
                "axis": None if lesion.axis is None else round(lesion.axis, 4),
            },
            "scale": self.scale,
            "probabilities": self.probabilities,
            "likely": self.likely,
            "malignancy": self.malignancy,
            "familiarity": None
            if self.distance is None
            else {
                "distance": round(self.distance, 4),
                "threshold": self.threshold,
                "unfamiliar": self.unfamiliar,
            },
            "similar": [
                {"id": case.id, "label": case.label, "similarity": round(case.similarity, 4)}
                for case in self.similar
            ],
            "triage": self.triage,
            "rule": self.rule,
            "because": self.because.to_json(),
            "timing_ms": self.timing_ms,
            "versions": self.versions,
            "disclaimer": DISCLAIMER,
        }

    def full_mask(self) -> np.ndarray:
        """The lesion as bool (height, width) at the picture's own size."""
        mask = self.lesion.mask.astype(np.uint8) * 255
        return cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_LINEAR) > 127


def most_likely(manifest: Manifest, probabilities: np.ndarray) -> str:
    """The label that float (K,) probabilities speak for, after the manifest's class offsets."""
    scores = np.log(np.maximum(probabilities, 1e-12, dtype=np.float64))
    return manifest.labels[int((scores + (manifest.thresholds.class_offsets or 0.0)).argmax())]


def triage_of(malignancy: float, limits: Thresholds) -> tuple[str, Rule]:
    """What a malignancy of 0 to 1 leads to, one of TRIAGE, and the rule that says so."""
    triage, limit = "low", limits.see_doctor
    for higher, its_limit in (("urgent", limits.urgent), ("see a doctor", limits.see_doctor)):
        if malignancy >= its_limit:
            triage, limit = higher, its_limit
            break
    return triage, Rule(triage, {"malignancy": float(malignancy), "limit": float(limit)})


class Network:
    """One graph of a bundle, loaded and checked. Not thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        roles: tuple[str, ...],
        threads: int = 0,
        views: int = 1,
        provider: str = "cpu",
    ):
        """Load the graph that plays `roles`.

        Parameters
        ----------
        bundle : an opened bundle.
        roles : one of `dermedge.bundle.ROLES`, or both where one part plays both.
        threads, provider : as `dermedge.runtime.open_session` takes them.
        views : 1, or 4 for test-time augmentation: the picture and its three mirrors.

        Raises
        ------
        BundleError
            Where the graph does not fit the manifest (size, labels, metadata, thresholds).
        SessionError
            Where the runtime does not load it.
        """
        if views not in (1, len(_VIEWS)):
            raise ValueError(f"views must be 1 or {len(_VIEWS)}, got {views!r}")
        self.model = bundle.manifest.models[roles[0]]
        self._name = f"{' and '.join(roles)} of {bundle.path}"
        self._views = _VIEWS[:views]
        self._session = open_session(bundle.model(roles[0]), threads, provider, bundle.sha256)
        self.runtime = self._session.runtime
        self._check_inputs()
        self._check_outputs(roles, bundle.manifest)

    def _refuse(self, reason: str) -> None:
        raise BundleError(
            "the {network} is refused: it {reason}",
            code="bundle.graph",
            network=self._name,
            reason=reason,
        )

    def _check_inputs(self) -> None:
        size, told = self.model.preprocessing.size, width(self.model.metadata)
        wanted = {"image": ((1, size, size, 3), np.uint8)}
        if told:
            wanted["metadata"] = ((1, told), np.float32)
        if {item.name: (item.shape, item.dtype) for item in self._session.inputs} != wanted:
            also = f" and float32 'metadata' of 1x{told}" if told else ""
            self._refuse(f"does not take uint8 'image' of 1x{size}x{size}x3{also}, and only that")

    def _check_outputs(self, roles: tuple[str, ...], manifest: Manifest) -> None:
        given = {item.name: (item.shape, item.dtype) for item in self._session.outputs}
        size, labels = self.model.preprocessing.size, len(manifest.labels)
        shapes = {"segmenter": (1, size, size), "classifier": (1, labels)}
        for role in roles:
            if given.get(OUTPUTS[role]) != (shapes[role], np.float32):
                self._refuse(
                    f"does not give float32 {OUTPUTS[role]!r} of "
                    f"{'x'.join(map(str, shapes[role]))}, as its labels and size demand"
                )
        if "classifier" not in roles:
            return
        forms = {"activation": (1, labels, None, None), "embedding": (1, None), "distance": (1, 1)}
        for name, form in forms.items():
            if name not in given:
                continue
            shape, dtype = given[name]
            fits = len(shape) == len(form) and all(
                side == wanted or wanted is None for side, wanted in zip(shape, form, strict=True)
            )
            if not fits or dtype != np.float32:
                self._refuse(f"gives {name!r} of a shape that is not its own")
        if manifest.thresholds.unfamiliar is not None and "distance" not in given:
            self._refuse("gives no 'distance', though there is a threshold for it")

    def run(
        self, square: np.ndarray, metadata: Mapping[str, object] | None = None
    ) -> dict[str, np.ndarray]:
        """The graph's outputs, without their first axis, by name.

        Maps and probabilities are means over the views; `embedding` and `distance` are those of
        the picture as it is, which the bundle's cases and threshold were made with.

        Parameters
        ----------
        square : uint8 (S, S, 3) RGB, from `dermedge.preprocess.prepare`.
        metadata : age, sex and site, as far as known, for `dermedge.metadata.encode`. What the
            network does not take is ignored.

        Raises SessionError where the network gives no finite numbers.
        """
        known = {}
        if self.model.metadata:
            known["metadata"] = encode(self.model.metadata, **(metadata or {}))[None]
        answers: dict[str, list[np.ndarray]] = {}
        for axes in self._views:
            image = np.ascontiguousarray(np.flip(square, axes)) if axes else square
            for name, value in self._session.run({"image": image[None], **known}).items():
                # Half precision overflows without an error; every comparison with NaN says "low".
                # One number that is none makes none of the sum.
                if not np.isfinite(value.sum()):
                    raise SessionError(
                        "the {network} gave no finite numbers",
                        code="session.nan",
                        network=self._name,
                    )
                if axes and value.ndim > 2:  # a map: its last two axes are those of the picture
                    value = np.flip(value, tuple(axis - 2 for axis in axes))
                answers.setdefault(name, []).append(value[0])
        return {
            name: values[0]
            if len(values) == 1 or name in ("embedding", "distance")
            else np.mean(values, axis=0)
            for name, values in answers.items()
        }


def along(bundle: Bundle, roads: Mapping[str, Road]) -> Bundle:
    """The bundle with the graphs that these roads run, and no others.

    Raises BundleError where it has none of a road's precision for its machine.
    """
    return bundle.sliced(
        {
            role: bundle.variant(role, road.precision, target(road.provider))
            for role, road in roads.items()
        }
    )


class Analyzer:
    """A bundle, loaded and ready. Not thread-safe: give each thread its own."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        views: int = 1,
        roads: Mapping[str, Road] | None = None,
    ):
        """Load the networks; one that plays both roles is loaded, and run on a picture, once.

        Parameters
        ----------
        bundle : an opened bundle.
        threads : for the inference runtime; 0 leaves the choice to it.
        views : 1, or 4 for test-time augmentation, see `Network`.
        roads : role to how its network is run, such as `dermedge.tune` finds them; a role that is
            not named runs as the bundle has it, on the processor. `threads` above 0 holds for all.

        Raises
        ------
        BundleError
            Where the bundle holds a single role, or a graph does not fit the manifest.
        SessionError
            Where the runtime does not load a graph.
        """
        roads = roads or {}
        self.bundle = bundle = along(bundle, roads)
        manifest = bundle.manifest
        missing = [role for role in ROLES if role not in manifest.models]
        if missing:
            raise BundleError(
                "bundle {path} has no {role}: it is for evaluation alone; export both runs into "
                "one bundle",
                code="bundle.role",
                path=bundle.path,
                role=missing[0],
            )

        def network(*roles: str) -> Network:
            road = roads.get(roles[0], Road())
            return Network(bundle, roles, threads or road.threads, views, road.provider)

        if manifest.models["segmenter"].part == manifest.models["classifier"].part:
            self._segmenter = self._classifier = network(*ROLES)
        else:
            self._segmenter, self._classifier = network("segmenter"), network("classifier")
        self.cases = None
        if CASES in manifest.parts:
            self.cases = Cases.from_bytes(bundle.part(CASES), len(manifest.labels))
        # What is looked at is never larger; a network that crops is given the whole picture.
        specs = [model.preprocessing for model in manifest.models.values()]
        self._side = max(SIDE, *(spec.size for spec in specs if not spec.crop))
        self._malignant = np.array([label in MALIGNANT for label in manifest.labels])
        self.versions = {
            "dermedge": __version__,
            "opencv": cv2.__version__,
            "runtime": self._classifier.runtime,
            "bundle": manifest.name,
            "bundle_sha256": bundle.sha256,
            "signed_by": bundle.signed_by,
            "procedural": manifest.procedural,
            "models": {
                role: f"{model.architecture} {model.precision} "
                f"{manifest.parts[model.part]['sha256'][:12]}"
                for role, model in manifest.models.items()
            },
        }

    def networks(self) -> dict[str, Network]:
        """Role to network; one that plays both roles is there twice."""
        return {"segmenter": self._segmenter, "classifier": self._classifier}

    def analyze(
        self,
        source: str | Path | bytes | Picture,
        name: str | None = None,
        px_per_mm: float | None = None,
        metadata: Mapping[str, object] | None = None,
        reference: str | None = None,
    ) -> Analysis:
        """Analyse one picture.

        Parameters
        ----------
        source : a file, an encoded picture, or one that was read already.
        name : what the analysis calls it; default: the file's path.
        px_per_mm : scale of the whole picture, where it is known; gives the diameter.
        metadata : of the person, as far as known: `age` in years, `sex`, `site`; see
            `dermedge.metadata.encode`. What the classifier does not take is ignored.
        reference : one of `dermedge.scale.REFERENCES` that lies beside the lesion; gives the
            diameter where it is found. The networks see drawn skin in its place, which shifts
            what they say: take the size from an extra picture.

        Raises
        ------
        ImageError
            Where the picture cannot be read.
        SessionError
            Where a network gives no finite numbers.
        ValueError
            Where both `px_per_mm` and `reference` are given.
        """
        if px_per_mm is not None and reference is not None:
            raise ValueError("px_per_mm and reference both tell the scale: give one")
        timing: dict[str, float] = {}

        @contextmanager
        def stage(label: str):
            start = time.perf_counter()
            yield
            spent = (time.perf_counter() - start) * 1000
            timing[label] = round(timing.get(label, 0.0) + spent, 3)

        start = time.perf_counter()
        with stage("decode"):
            picture = source if isinstance(source, Picture) else read_image(source)
        pixels = picture.pixels
        told, found_scale = None, None
        if px_per_mm is not None:
            told = {"reference": "given", "px_per_mm": px_per_mm, "reason": ""}
        elif reference is not None:
            with stage("scale"):
                told = {"reference": reference, "px_per_mm": None, "reason": ""}
                try:
                    found_scale = find(pixels, reference)
                except ScaleError as error:
                    told["reason"] = str(error)
                else:
                    pixels = found_scale.uncovered(pixels)
        with stage("prepare"):
            view, size = working(pixels, self._side), pixels.shape[:2]
            scale = picture.width / view.shape[1]
            square, placement = prepare(view, self._segmenter.model.preprocessing)
        with stage("segmenter"):
            found = self._segmenter.run(square, metadata)
        with stage("lesion"):
            certainty = placement.inside(found["mask"])
            lesion = measure(
                certainty,
                view,
                self.bundle.manifest.thresholds.mask,
                scale=scale,
                px_per_mm=px_per_mm,
            )
            if found_scale is not None and lesion.found:
                # In px of `pixels`, whose first covers `covered` px of the whole picture.
                covered = picture.width / pixels.shape[1]
                outline = (np.concatenate(lesion.polygons) - (covered - 1) / 2) / covered
                middle = tuple(outline.mean(axis=0))
                told["px_per_mm"] = round(found_scale.px_per_mm(middle) * covered, 4)
                lesion = replace(lesion, diameter_mm=found_scale.extent(outline))
        with stage("quality"):
            hidden = None if found_scale is None else found_scale.cover
            quality = assess(view, lesion.mask, certainty, hidden)
        spec = self._classifier.model.preprocessing
        placement = Placement(*size, spec.size)
        if self._classifier is not self._segmenter:
            with stage("prepare"):
                if spec.crop and lesion.found:
                    # Not `lesion.box`, which is of the whole picture and rounded there.
                    box = np.array(cv2.boundingRect(lesion.mask.view(np.uint8)))
                    square, placement = prepare(pixels, spec, box * (size[1] // view.shape[1]))
                else:
                    square, _ = prepare(view, spec)
        with stage("classifier"):
            if self._classifier is not self._segmenter:
                found = self._classifier.run(square, metadata)
            probabilities = found["probabilities"]
            embedding = found.get("embedding")
            similar = ()
            if self.cases is not None and embedding is not None:
                similar = self.cases.nearest(embedding, self.bundle.manifest.labels, SIMILAR)
        malignancy = float(probabilities[self._malignant].sum(dtype=np.float64).clip(0, 1))
        limits = self.bundle.manifest.thresholds
        distance = float(found["distance"][0]) if "distance" in found else None
        unfamiliar = limits.unfamiliar is not None and distance > limits.unfamiliar
        triage, because = self._triage(quality, distance if unfamiliar else None, malignancy)
        timing["total"] = round((time.perf_counter() - start) * 1000, 3)
        return Analysis(
            image=name or ("" if isinstance(source, (bytes, Picture)) else str(source)),
            height=picture.height,
            width=picture.width,
            quality=quality,
            lesion=lesion,
            scale=told,
            probabilities={
                label: round(float(value), 6)
                for label, value in zip(self.bundle.manifest.labels, probabilities, strict=True)
            },
            likely=most_likely(self.bundle.manifest, probabilities),
            malignancy=round(malignancy, 6),
            distance=distance,
            unfamiliar=unfamiliar,
            threshold=limits.unfamiliar,
            activation=found.get("activation"),
            placement=placement,
            embedding=embedding,
            similar=similar,
            triage=triage,
            because=because,
            timing_ms=timing,
            versions=self.versions,
        )

    def _triage(self, quality: Quality, far: float | None, malignancy: float) -> tuple[str, Rule]:
        # An estimate from a picture that cannot be judged would only look like knowledge.
        limits = self.bundle.manifest.thresholds
        if not quality.usable:
            return "retake", Rule("quality", {"reasons": quality.reasons[: quality.refused]})
        if far is not None:
            return "retake", Rule(
                "unfamiliar", {"distance": float(far), "limit": float(limits.unfamiliar)}
            )
        return triage_of(malignancy, limits)
