"""From a picture to a decision: quality, lesion, class probabilities, risk, triage."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dermedge import DISCLAIMER, __version__
from dermedge.bundle import ROLES, Bundle, BundleError
from dermedge.image import Picture, read_image
from dermedge.lesion import Lesion, measure
from dermedge.preprocess import prepare
from dermedge.quality import Quality, assess
from dermedge.session import SessionError, open_session
from dermedge.taxonomy import MALIGNANT

OUTPUTS = {"segmenter": "mask", "classifier": "probabilities"}
TRIAGE = ("retake", "low", "see a doctor", "urgent")


@dataclass(frozen=True)
class Analysis:
    """What was found in one picture. Coordinates are px of the whole picture, oriented upright."""

    image: str
    height: int
    width: int
    quality: Quality
    lesion: Lesion
    probabilities: dict[str, float]  # class: calibrated probability, sum 1
    malignancy: float  # sum over the malignant classes
    triage: str  # one of TRIAGE
    rule: str  # what led to the triage, in words
    timing_ms: dict[str, float]  # stage: ms; 'total' is the whole call
    versions: dict[str, object]

    def to_json(self) -> dict:
        """The object that `analysis.schema.json` describes."""
        lesion = self.lesion
        return {
            "image": self.image,
            "size": [self.width, self.height],
            "quality": {
                "ok": self.quality.ok,
                "reasons": list(self.quality.reasons),
                "scores": {name: round(v, 4) for name, v in self.quality.scores.items()},
            },
            "lesion": {
                "found": lesion.found,
                "box": list(lesion.box) if lesion.box else None,
                "polygons": [polygon.tolist() for polygon in lesion.polygons],
                "area_px": lesion.area_px,
            },
            "abcd": {
                "asymmetry": lesion.asymmetry,
                "border": lesion.border,
                "color": lesion.color,
                "diameter_mm": lesion.diameter_mm,
                "asymmetry_index": lesion.asymmetry_index,
                "border_irregularity": lesion.border_irregularity,
            },
            "probabilities": self.probabilities,
            "malignancy": self.malignancy,
            "triage": self.triage,
            "rule": self.rule,
            "timing_ms": self.timing_ms,
            "versions": self.versions,
            "disclaimer": DISCLAIMER,
        }

    def full_mask(self) -> np.ndarray:
        """The lesion as bool (height, width) at the picture's own size."""
        mask = self.lesion.mask.astype(np.uint8) * 255
        return cv2.resize(mask, (self.width, self.height), interpolation=cv2.INTER_LINEAR) > 127


class Analyzer:
    """A bundle, loaded and ready. Not thread-safe: give each thread its own."""

    def __init__(self, bundle: Bundle, threads: int = 0):
        """Load both networks.

        Parameters
        ----------
        bundle : an opened bundle.
        threads : for the inference runtime; 0 leaves the choice to it.

        Raises
        ------
        BundleError
            Where a graph does not fit the manifest (input size, number of labels).
        SessionError
            Where the runtime does not load a graph.
        """
        self.bundle = bundle
        manifest = bundle.manifest
        self._specs = {role: manifest.models[role].preprocessing for role in ROLES}
        self._sessions = {role: open_session(bundle.model(role), threads) for role in ROLES}
        size = self._specs["segmenter"].size
        self._expect("segmenter", (1, size, size))
        self._expect("classifier", (1, len(manifest.labels)))
        self._malignant = np.array([label in MALIGNANT for label in manifest.labels])
        self.versions = {
            "dermedge": __version__,
            "opencv": cv2.__version__,
            "runtime": self._sessions["classifier"].runtime,
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

    def _expect(self, role: str, shape: tuple[int, ...]) -> None:
        session, size, output = self._sessions[role], self._specs[role].size, OUTPUTS[role]
        taken = [(item.name, item.shape, item.dtype) for item in session.inputs]
        given = {item.name: (item.shape, item.dtype) for item in session.outputs}
        if taken != [("image", (1, size, size, 3), np.uint8)]:
            raise BundleError(
                f"bundle {self.bundle.path} is refused: its {role} does not take one uint8 "
                f"'image' of 1x{size}x{size}x3"
            )
        if given.get(output) != (shape, np.float32):
            raise BundleError(
                f"bundle {self.bundle.path} is refused: its {role} does not give float32 "
                f"{output!r} of {'x'.join(map(str, shape))}, as its labels and size demand"
            )

    def _run(self, role: str, square: np.ndarray) -> np.ndarray:
        output = self._sessions[role].run({"image": square[None]})[OUTPUTS[role]][0]
        # Half precision overflows without an error; every comparison with NaN would say "low".
        if not np.isfinite(output).all():
            raise SessionError(f"the {role} of {self.bundle.path} gave no finite numbers")
        return output

    def analyze(
        self,
        source: str | Path | bytes | Picture,
        name: str | None = None,
        px_per_mm: float | None = None,
    ) -> Analysis:
        """Analyse one picture.

        Parameters
        ----------
        source : a file, an encoded picture, or one that was read already.
        name : what the analysis calls it; default: the file's path.
        px_per_mm : scale of the whole picture, where it is known; gives the diameter.

        Raises
        ------
        ImageError
            Where the picture cannot be read.
        SessionError
            Where a network gives no finite numbers.
        """
        timing: dict[str, float] = {}

        @contextmanager
        def stage(label: str):
            start = time.perf_counter()
            yield
            timing[label] = round((time.perf_counter() - start) * 1000, 3)

        start = time.perf_counter()
        with stage("decode"):
            picture = source if isinstance(source, Picture) else read_image(source)
        pixels = picture.pixels
        scale = picture.width / pixels.shape[1]
        with stage("prepare"):
            inputs = {role: prepare(pixels, spec) for role, spec in self._specs.items()}
        with stage("segmenter"):
            output = self._run("segmenter", inputs["segmenter"][0])
        with stage("classifier"):
            probabilities = self._run("classifier", inputs["classifier"][0])
        with stage("lesion"):
            lesion = measure(
                inputs["segmenter"][1].restore(output),
                pixels,
                self.bundle.manifest.thresholds.mask,
                scale=scale,
                px_per_mm=px_per_mm,
            )
        with stage("quality"):
            quality = assess(pixels, lesion.mask)
        malignancy = float(probabilities[self._malignant].sum(dtype=np.float64).clip(0, 1))
        triage, rule = self._triage(quality, malignancy)
        timing["total"] = round((time.perf_counter() - start) * 1000, 3)
        return Analysis(
            image=name or ("" if isinstance(source, (bytes, Picture)) else str(source)),
            height=picture.height,
            width=picture.width,
            quality=quality,
            lesion=lesion,
            probabilities={
                label: round(float(value), 6)
                for label, value in zip(self.bundle.manifest.labels, probabilities, strict=True)
            },
            malignancy=round(malignancy, 6),
            triage=triage,
            rule=rule,
            timing_ms=timing,
            versions=self.versions,
        )

    def _triage(self, quality: Quality, malignancy: float) -> tuple[str, str]:
        # An estimate from a picture that cannot be judged would only look like knowledge.
        if not quality.ok:
            return "retake", f"picture quality: {', '.join(quality.reasons)}"
        limits = self.bundle.manifest.thresholds
        for triage, limit in (("urgent", limits.urgent), ("see a doctor", limits.see_doctor)):
            if malignancy >= limit:
                return triage, f"malignancy {malignancy:.3f} >= {triage} threshold {limit:.3f}"
        return (
            "low",
            f"malignancy {malignancy:.3f} < see a doctor threshold {limits.see_doctor:.3f}",
        )
