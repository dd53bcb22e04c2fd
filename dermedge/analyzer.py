"""From a picture to a decision: a list of stages over frozen values, run under a driver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dermedge import __version__
from dermedge.analysis import Analysis
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import CASES, ROLES, BundleError, BundleRefused, Thresholds
from dermedge.bundle.similar import Case, SimilarCases
from dermedge.image.frame import inner
from dermedge.image.preprocess import Placement, Preprocessing, prepare, working
from dermedge.image.read import Picture, read_image
from dermedge.lesion.features import Lesion, measure
from dermedge.lesion.quality import SIDE, Quality, assess
from dermedge.lesion.scale import (
    LEAST_PX_PER_MM,
    MOST_PX_PER_MM,
    REFERENCES,
    Scale,
    ScaleError,
    find,
)
from dermedge.metadata import checked
from dermedge.network import Network, Outputs, Steps, drive, graph_of
from dermedge.outlier import OutlierHead, evidence
from dermedge.runtime import MOST_THREADS, ExecutionConfig
from dermedge.triage import decide, malignancy_of, most_likely

SHOWN_CASES = 3  # similar ones


@dataclass(frozen=True, eq=False)
class Cropped:
    """A picture without the plain frame around it.

    pixels : uint8 (h, w, 3) RGB of what is judged. width : its width in px of the whole picture.
    corner : (x, y) of its first px in the pixels as read. part : (x, y, width, height) of it in
    the whole picture; None where there is no frame.
    """

    pixels: np.ndarray
    width: float
    corner: tuple[int, int] = (0, 0)
    part: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Scaled:
    """A picture whose scale was asked for.

    pixels : uint8 (h, w, 3) RGB, drawn skin in the place of a reference that was found.
    statement : as `Analysis.scale`. marker : the reference, where one was found.
    """

    pixels: np.ndarray
    statement: dict[str, object] | None = None
    marker: Scale | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a network is given.

    view : uint8 RGB, the picture reduced to what is measured. square : the network's input.
    placement : leads from the input back to the picture, or to a part of it.
    """

    view: np.ndarray
    square: np.ndarray
    placement: Placement


@dataclass(frozen=True, eq=False)
class Outlined:
    """The lesion, the map it was drawn from (float32, 0 to 1, of the view), and the scale there."""

    lesion: Lesion
    certainty: np.ndarray
    statement: dict[str, object] | None


@dataclass
class Stopwatch:
    """Stage to ms; the times of a stage that comes twice are added up."""

    spent: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside, and add it to stage `name`; nothing where that raises."""
        start = time.perf_counter()
        yield
        elapsed = (time.perf_counter() - start) * 1000
        self.spent[name] = round(self.spent.get(name, 0.0) + elapsed, 3)

    def total(self) -> dict[str, float]:
        """Stage to ms, and under 'total' the ms since the stopwatch was made."""
        return {**self.spent, "total": round((time.perf_counter() - self.begun) * 1000, 3)}


def crop_frame(picture: Picture, side: int = SIDE, written: bool = True) -> Cropped:
    """Leave out a plain frame: it would be judged as too bright or too dark.

    `side` px is the most that any stage needs of the whole picture; `written` as `inner` takes it.
    """
    pixels = picture.pixels
    x, y, across, down = inner(pixels, written)
    part = pixels[y : y + down, x : x + across]
    view = working(part, side)
    if view.shape != part.shape:  # in the smaller copy, noise no longer hides a frame
        factor = across // view.shape[1]
        left, top, across, down = (factor * value for value in inner(view, written))
        x, y = x + left, y + top
    if (down, across) == pixels.shape[:2]:
        return Cropped(pixels, picture.width)
    # In px of the whole picture, which was maybe reduced in reading.
    covered = picture.width / pixels.shape[1]
    left, top = round(x * covered), round(y * covered)
    # The last px of a reduced picture may cover less than the others.
    right = min(round((x + across) * covered), picture.width)
    bottom = min(round((y + down) * covered), picture.height)
    pixels = np.ascontiguousarray(pixels[y : y + down, x : x + across])
    return Cropped(pixels, across * covered, (x, y), (left, top, right - left, bottom - top))


def find_scale(pixels: np.ndarray, reference: str) -> Scaled:
    """Look for the reference in uint8 (h, w, 3) RGB, and cover it by drawn skin if it is there."""
    statement: dict[str, object] = {"reference": reference, "px_per_mm": None, "reason": ""}
    try:
        marker = find(pixels, reference)
    except ScaleError as error:
        return Scaled(pixels, {**statement, "reason": str(error)})
    return Scaled(marker.inpainted(pixels), statement, marker)


def prepare_whole(pixels: np.ndarray, side: int, spec: Preprocessing) -> Prepared:
    """The whole picture for a network; `side` px is the most that any stage needs of it."""
    view = working(pixels, side)
    return Prepared(view, *prepare(view, spec, framed=False))


def outline(
    outputs: Outputs,
    prepared: Prepared,
    scaled: Scaled,
    width: float,
    limits: Thresholds,
    px_per_mm: float | None,
) -> Outlined:
    """From the segmenter's map to a measured lesion; `width` is that of the picture, in px."""
    certainty = prepared.placement.inside(outputs["mask"])
    lesion = measure(
        certainty,
        prepared.view,
        limits.mask,
        scale=width / prepared.view.shape[1],
        px_per_mm=px_per_mm,
    )
    statement = scaled.statement
    if scaled.marker is not None and statement is not None and lesion.found:
        # In px of the pixels, whose first covers `covered` px of the whole picture.
        covered = width / scaled.pixels.shape[1]
        points = (np.concatenate(lesion.polygons) - (covered - 1) / 2) / covered
        x, y = points.mean(axis=0)
        per_mm = round(float(scaled.marker.px_per_mm((x, y)) * covered), 4)
        statement = {**statement, "px_per_mm": per_mm}
        lesion = replace(lesion, diameter_mm=scaled.marker.extent(points))
    return Outlined(lesion, certainty, statement)


def prepare_lesion(
    scaled: Scaled, prepared: Prepared, lesion: Lesion, spec: Preprocessing
) -> Prepared:
    """The classifier's input: the lesion and its surroundings where `spec` crops, else all."""
    view, (height, width) = prepared.view, scaled.pixels.shape[:2]
    if spec.crop and lesion.found:
        # Not `lesion.box`, which is of the whole picture and rounded there.
        box = np.array(cv2.boundingRect(lesion.mask.view(np.uint8))) * (width // view.shape[1])
        return Prepared(view, *prepare(scaled.pixels, spec, box, framed=False))
    square, _ = prepare(view, spec, framed=False)
    return Prepared(view, square, Placement(height, width, spec.size))


def moved(lesion: Lesion, x: int, y: int) -> Lesion:
    """With coordinates of the whole picture, where they were of the part from (x, y) on."""
    if lesion.box is None or lesion.centroid is None:
        return lesion
    left, top, width, height = lesion.box
    return replace(
        lesion,
        polygons=tuple(polygon + (x, y) for polygon in lesion.polygons),
        box=(left + x, top + y, width, height),
        centroid=(lesion.centroid[0] + x, lesion.centroid[1] + y),
    )


def within(lesion: Lesion, width: int, height: int) -> Lesion:
    """With coordinates in a whole picture of this size, px: the last row or column of one that
    was reduced may cover less of it than the others."""
    if lesion.box is None or lesion.centroid is None:
        return lesion
    x, y, across, down = lesion.box
    most = width - 1, height - 1
    return replace(
        lesion,
        polygons=tuple(np.clip(polygon, 0, most) for polygon in lesion.polygons),
        box=(x, y, min(across, width - x), min(down, height - y)),
        centroid=(min(lesion.centroid[0], most[0]), min(lesion.centroid[1], most[1])),
    )


def with_executions(bundle: Bundle, executions: Mapping[str, ExecutionConfig]) -> Bundle:
    """The bundle with the graphs that these executions run, and no others.

    Raises BundleError where it has none of an execution's precision for its machine.
    """
    return bundle.sliced(
        {role: graph_of(bundle, role, execution) for role, execution in executions.items()}
    )


def similar_cases(bundle: Bundle, length: int | None) -> SimilarCases:
    """The bundle's cases, for a classifier whose `embedding` has `length` numbers, None: none.

    Raises BundleRefused where they are not what the classifier needs.
    """
    try:
        cases = SimilarCases.from_bytes(bundle.part(CASES), len(bundle.manifest.labels))
        found = cases.embeddings.shape[1]
        if found != length:
            raise BundleError(
                "the embeddings of its labelled cases have the length {found}, those of its "
                "classifier {length}: export the bundle again",
                code="bundle.cases",
                found=found,
                length=length or 0,
            )
    except BundleError as error:
        raise BundleRefused.of(bundle.path, error) from None
    return cases


class Analyzer:
    """A bundle, loaded and ready. Not thread-safe: give each thread its own."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        views: int = 1,
        executions: Mapping[str, ExecutionConfig] | None = None,
    ):
        """Load the networks; one that plays both roles is loaded, and run on a picture, once.

        Parameters
        ----------
        bundle : an opened bundle.
        threads : for the inference runtime, at most 1024; 0 leaves the choice to it.
        views : 1, or 4 for test-time augmentation, see `Network`.
        executions : role, "segmenter" or "classifier", to how its network runs, such as
            `dermedge.tune` finds them; a network of which no role is named runs as the bundle has
            it, on the processor. `threads` above 0 holds for all.

        Raises
        ------
        BundleError
            Where the bundle holds a single role, or a graph does not fit the manifest.
        SessionError
            Where the runtime does not load a graph.
        ValueError
            Where `executions` names another role, or one network's in two ways, `views` is neither,
            or a number of threads is out of its range.
        TypeError
            Where `bundle` is not an opened one, such as its file's name, a number of threads is
            no whole number, or what `executions` gives a role is no ExecutionConfig.
        """
        if not isinstance(bundle, Bundle):
            raise TypeError(f"bundle is what open_bundle(PATH) gives, got {bundle!r}")
        executions = executions or {}
        if unknown := [role for role in executions if role not in ROLES]:
            raise ValueError(f"executions must be of {' and '.join(ROLES)}, got {unknown[0]!r}")
        for role, execution in executions.items():
            if not isinstance(execution, ExecutionConfig):
                raise TypeError(f"execution of {role} is an ExecutionConfig, got {execution!r}")
        for count in (threads, *(execution.threads for execution in executions.values())):
            if not isinstance(count, Integral):
                raise TypeError(f"threads is a whole number, got {count!r}")
            if not 0 <= count <= MOST_THREADS:
                raise ValueError(f"threads must be 0 to {MOST_THREADS}, got {count}")
        missing = [role for role in ROLES if role not in bundle.manifest.models]
        if missing:
            raise BundleError(
                "bundle {path} has no {role}: it is for evaluation alone; export both runs into "
                "one bundle",
                code="bundle.role",
                path=bundle.path,
                role=missing[0],
            )
        self.bundle = bundle = with_executions(bundle, executions)
        manifest = bundle.manifest

        def network(*roles: str) -> Network:
            named = {executions[role] for role in roles if role in executions}
            if len(named) > 1:
                raise ValueError(
                    f"{' and '.join(roles)} of {bundle.path} are one network, which runs in one "
                    f"way, got {' and '.join(sorted(map(str, named)))}"
                )
            execution = named.pop() if named else ExecutionConfig()
            return Network(bundle, roles, threads or execution.threads, views, execution.provider)

        if manifest.models["segmenter"].part == manifest.models["classifier"].part:
            self._segmenter = self._classifier = network(*ROLES)
        else:
            self._segmenter, self._classifier = network("segmenter"), network("classifier")
        self.cases = None
        if CASES in manifest.parts:
            self.cases = similar_cases(bundle, self._classifier.embedding)
        self.outliers = OutlierHead.of(bundle, self._classifier)
        self.keeps_evidence = False  # also without a head, for one to be fitted
        # What is looked at is never larger; a network that crops is given the whole picture.
        specs = [model.preprocessing for model in manifest.models.values()]
        self._side = max(SIDE, *(spec.size for spec in specs if not spec.crop))
        self.versions: dict[str, object] = {
            "dermedge": __version__,
            "opencv": cv2.__version__,
            "runtime": self._classifier.runtime,
            "bundle": manifest.name,
            "bundle_sha256": bundle.sha256,
            "signed_by": bundle.signed_by,
            "signature": str(bundle.signature),
            "release": manifest.release,
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
        metadata: Mapping[str, Any] | None = None,
        reference: str | None = None,
    ) -> Analysis:
        """Analyse one picture.

        Parameters
        ----------
        source : a file, an encoded picture, or one that was read already: pixels go into a
            `dermedge.image.read.Picture`, uint8 RGB and upright.
        name : what the analysis calls it, "" for nothing; default: the file's path.
        px_per_mm : scale of the whole picture, 0.01 to 100,000 px, where it is known; gives the
            diameter.
        metadata : of the person, as far as known: `age` in years, 0 to 120, `sex`, "male" or
            "female", `site`, a part of the body in English such as "back" or "forearm". Of these,
            what the classifier does not take is ignored. None, NaN and "" say nothing.
        reference : one of `dermedge.lesion.scale.REFERENCES` that lies beside the lesion; gives the
            diameter where it is found. The networks see drawn skin in its place, which shifts
            what they say: take the size from an extra picture.

        Raises
        ------
        ImageError
            Where the picture cannot be read.
        TypeError
            Where `source` is neither.
        SessionError
            Where a network gives no finite numbers.
        UserError
            Where metadata has another name, or a value that is not understood.
        ValueError
            Where both `px_per_mm` and `reference` are given, `px_per_mm` is out of its range, or
            there is no such `reference`.
        """
        return drive(self.steps(source, name, px_per_mm, metadata, reference))

    def steps(
        self,
        source: str | Path | bytes | Picture,
        name: str | None = None,
        px_per_mm: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        reference: str | None = None,
    ) -> Steps[Analysis]:
        """The stages of `analyze`, for a driver that may not block: see `dermedge.network`."""
        if px_per_mm is not None and reference is not None:
            raise ValueError("px_per_mm and reference both state the scale: give one")
        if reference is not None and reference not in REFERENCES:
            raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {reference!r}")
        if px_per_mm is not None:
            px_per_mm = float(px_per_mm)  # numpy's own are no JSON
            if not LEAST_PX_PER_MM <= px_per_mm <= MOST_PX_PER_MM:
                raise ValueError(
                    f"px_per_mm must be {LEAST_PX_PER_MM} to {MOST_PX_PER_MM}, got {px_per_mm:g}"
                )
        metadata = checked(metadata)
        clock, limits = Stopwatch(), self.bundle.manifest.thresholds
        with clock.stage("decode"):
            picture = source if isinstance(source, Picture) else read_image(source)
        with clock.stage("prepare"):
            cropped = crop_frame(picture, self._side, written=reference is None)
        scaled = Scaled(cropped.pixels)
        if px_per_mm is not None:
            scale = {"reference": "given", "px_per_mm": px_per_mm, "reason": ""}
            scaled = Scaled(cropped.pixels, scale)
        elif reference is not None:
            with clock.stage("scale"):
                scaled = find_scale(cropped.pixels, reference)
        with clock.stage("prepare"):
            spec = self._segmenter.model.preprocessing
            whole = prepare_whole(scaled.pixels, self._side, spec)
        with clock.stage("segmenter"):
            outputs = yield from self._segmenter.steps(whole.square, metadata)
        with clock.stage("lesion"):
            outlined = outline(outputs, whole, scaled, cropped.width, limits, px_per_mm)
        with clock.stage("quality"):
            hidden = None if scaled.marker is None else scaled.marker.cover
            quality = assess(whole.view, outlined.lesion.mask, outlined.certainty, hidden)
        if self._classifier is self._segmenter:
            rows, columns = scaled.pixels.shape[:2]
            placement = Placement(rows, columns, spec.size)
        else:
            with clock.stage("prepare"):
                spec = self._classifier.model.preprocessing
                close = prepare_lesion(scaled, whole, outlined.lesion, spec)
            placement = close.placement
            with clock.stage("classifier"):
                outputs = yield from self._classifier.steps(close.square, metadata)
        with clock.stage("classifier"):
            similar = self._similar(outputs.get("embedding"))
        with clock.stage("quality"):
            seen = outlier = None
            if self.outliers is not None or self.keeps_evidence:
                seen = evidence(outputs, whole.view, outlined.certainty, quality)
            if self.outliers is not None and seen is not None:
                outlier = float(self.outliers.score(seen))
                quality = self.outliers.judge(outlier, quality)
        image = str(name)
        if name is None:
            image = "" if isinstance(source, (bytes, Picture)) else str(source)
        analysis = self._conclude(
            image, picture, cropped, quality, outlined, placement, outputs, similar, clock
        )
        return replace(analysis, evidence=seen, outlier=outlier)

    def _similar(self, embedding: np.ndarray | None) -> tuple[Case, ...]:
        if self.cases is None or embedding is None:
            return ()
        return self.cases.nearest(embedding, self.bundle.manifest.labels, SHOWN_CASES)

    def _conclude(
        self,
        image: str,
        picture: Picture,
        cropped: Cropped,
        quality: Quality,
        outlined: Outlined,
        placement: Placement,
        outputs: Outputs,
        similar: tuple[Case, ...],
        clock: Stopwatch,
    ) -> Analysis:
        manifest = self.bundle.manifest
        labels, limits = manifest.labels, manifest.thresholds
        lesion, probabilities = outlined.lesion, outputs["probabilities"]
        if cropped.part is not None:
            lesion = moved(lesion, *cropped.part[:2])
            x, y = np.add(placement.corner, cropped.corner).tolist()
            placement = replace(placement, corner=(x, y), whole=None)
        lesion = within(lesion, picture.width, picture.height)
        malignancy = malignancy_of(probabilities, labels)
        distance = float(outputs["distance"][0]) if "distance" in outputs else None
        unfamiliar = (
            distance is not None and limits.unfamiliar is not None and distance > limits.unfamiliar
        )
        triage, because = decide(quality, malignancy, distance if unfamiliar else None, limits)
        return Analysis(
            image=image,
            height=picture.height,
            width=picture.width,
            inner=cropped.part,
            quality=quality,
            lesion=lesion,
            scale=outlined.statement,
            probabilities={
                label: round(float(value), 6)
                for label, value in zip(labels, probabilities, strict=True)
            },
            likely=most_likely(manifest, probabilities),
            malignancy=round(malignancy, 6),
            distance=distance,
            unfamiliar=unfamiliar,
            threshold=limits.unfamiliar,
            activation=outputs.get("activation"),
            placement=placement,
            embedding=outputs.get("embedding"),
            similar=similar,
            triage=triage,
            because=because,
            timing_ms=clock.total(),
            versions=deepcopy(self.versions),  # of one picture alone, whatever is added
            outlier_limit=None if self.outliers is None else float(self.outliers.limit[0]),
        )
