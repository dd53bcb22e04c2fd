"""What the page's worker asks of Python: read a picture, analyse it step by step, say it in words.

Everything that crosses is a number, a string or an address in this memory. The worker drives the
stages of `dermedge.analyzer` itself: it is handed a request, awaits ONNX Runtime Web, and comes
back with the outputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from dermedge import DISCLAIMER, UserError
from dermedge.analysis import Analysis, lesion_outline
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.combine import combine
from dermedge.image.foreign import Foreign, read_foreign
from dermedge.image.read import Picture
from dermedge.network import Steps
from dermedge.runtime import browser
from edge_app.i18n import language
from edge_app.i18n.language import _
from edge_app.presentation import estimate
from edge_app.store import clock
from edge_app.store.records import BY_CLOCK, GIVEN, UNKNOWN
from edge_app.web import case

GUIDE_GOOD = language.N_("Good picture. Hold still and press the button.")


class Page:
    """One page's worth of state: the analyzer, and the analyses of the lesion at hand."""

    def __init__(self, path: str):
        """Open and check the bundle. Raises BundleError."""
        self._bundle = Bundle.open(path)
        self._parts = sorted({model.part for model in self._bundle.manifest.models.values()})
        self._analyzer: Analyzer | None = None
        self._file: Foreign | None = None
        self._pixels: np.ndarray | None = None
        self._room = np.empty(0, np.uint8)
        self._halved = False  # by the decoder itself
        self._steps: Steps[Any] | None = None
        self._outputs: dict[str, np.ndarray] = {}
        self._done: Callable[[Any], dict] = lambda result: {}
        self._analyses: list[dict] = []
        self._times: list[case.Time] = []  # of each

    # ------------------------------------------------------------------------ loading

    def graphs(self) -> int:
        """How many graphs ONNX Runtime Web is to load."""
        return len(self._parts)

    def graph(self, number: int) -> bytes:
        """One of them."""
        return self._bundle.part(self._parts[number])

    def announce(self, number: int, description: str) -> str:
        """A graph is loaded; see `dermedge.runtime.browser.announce`. Gives the session's key."""
        graph = self.graph(number)
        browser.announce(graph, description)
        return hashlib.sha256(graph).hexdigest()

    def ready(self) -> str:
        """All graphs are loaded: what the page may say of the model, as JSON."""
        self._analyzer = Analyzer(self._bundle)
        return json.dumps(self._analyzer.versions)

    def speak(self, name: str) -> str:
        """Use a language from now on; the words of the last result, if there is one, as JSON."""
        language.use(name)
        return json.dumps(self._said() if self._analyses else None)

    # ------------------------------------------------------------------------ pictures

    def open(self, data: Any) -> str:
        """Check a picture's file. JSON: "kind", upright "width", "height", "factor"; or "error"."""
        try:
            self._file = read_foreign(data.to_bytes())
        except UserError as error:
            return json.dumps({"error": self._sentence(error)})
        found = self._file
        rows, columns = (-(-side // found.factor) for side in (found.height, found.width))
        self._pixels = np.empty((rows, columns, 3), np.uint8)
        names = "kind", "width", "height", "factor"
        return json.dumps({name: getattr(found, name) for name in names})

    def room(self, count: int) -> int:
        """Address of so many bytes, for the RGBA of a picture that `rows` or `look` takes next."""
        if self._room.size != count:
            self._room = np.empty(count, np.uint8)
        return _address(self._room)

    def rows(self, top: int, width: int) -> None:
        """Take rows of the upright picture, from row `top` on.

        They are rows of the whole, or, of the reduced width, of a picture that was halved while it
        was decoded.
        """
        assert self._file is not None, "no picture is open"
        assert self._pixels is not None, "no picture is open"
        strip = np.ascontiguousarray(self._room.reshape(-1, width, 4)[..., :3])
        self._halved = width != self._file.width
        if not self._halved:
            strip = self._file.halve(strip)
            top //= self._file.factor
        self._pixels[top : top + len(strip)] = strip

    def begin(self, options: str) -> str:
        """Analyse the picture that was opened; see `advance` for what it gives.

        `options` is JSON: "reference", one of `dermedge.lesion.scale.REFERENCES` or null;
        "another": it shows the same lesion as those before; "now", ISO 8601, UTC; "fresh": it was
        taken now. Else it was taken when its file says so.
        """
        assert self._file is not None, "no picture is open"
        assert self._pixels is not None, "no picture is open"
        wanted = json.loads(options)
        if not wanted["another"]:
            self._analyses, self._times = [], []
        stated = "" if wanted["fresh"] else clock.of_camera(self._file.taken)
        dating = BY_CLOCK if wanted["fresh"] else GIVEN if stated else UNKNOWN
        self._time = case.Time(stated or wanted["now"], dating)
        try:
            picture = self._file.picture(self._pixels, self._halved)
        except UserError as error:
            return json.dumps({"error": self._sentence(error)})
        finally:
            self._file = self._pixels = None
        return self._start(picture, self._concluded, wanted["reference"])

    def look(self, width: int, height: int, across: int, down: int) -> str:
        """Begin to analyse a frame of the camera, made smaller, for hints alone; as `begin`."""
        pixels: np.ndarray = self._room.reshape(height, width, 4)
        if (width, height) != (across, down):
            pixels = cv2.resize(pixels, (across, down), interpolation=cv2.INTER_AREA)
        pixels = np.ascontiguousarray(pixels[..., :3])
        return self._start(Picture(pixels, down, across), self._hint)

    # ------------------------------------------------------------------------ steps

    def _start(
        self, picture: Picture, done: Callable[[Analysis], dict], reference: str | None = None
    ) -> str:
        assert self._analyzer is not None, "the networks are not loaded"
        self._done = done
        self._steps = self._analyzer.steps(picture, name="picture", reference=reference)
        return self._next(None)

    def advance(self) -> str:
        """The outputs are there: the next request, or the end, as JSON.

        A request: "session", its key; "feeds" and "outputs" as lists of name, address, type and
        shape. The end: "done", with the result; or "error", a line in words.
        """
        return self._next(self._outputs)

    def _next(self, outputs: dict[str, np.ndarray] | None) -> str:
        assert self._steps is not None, "nothing has begun"
        try:
            inference = self._steps.send(outputs)  # type: ignore[arg-type]
        except StopIteration as end:
            self._steps = None
            return json.dumps({"done": self._done(end.value)})
        except UserError as error:
            self._steps = None
            return json.dumps({"error": self._sentence(error)})
        session = inference.session
        assert isinstance(session, browser.BrowserSession), "no other is announced"
        self._outputs = {item.name: np.empty(item.shape, item.dtype) for item in session.outputs}
        # Alive until the next request: the worker reads and writes at their addresses.
        self._feeds = {name: np.ascontiguousarray(v) for name, v in inference.feeds.items()}
        return json.dumps(
            {
                "session": session.key,
                "feeds": [_described(name, value) for name, value in self._feeds.items()],
                "outputs": [_described(name, value) for name, value in self._outputs.items()],
            }
        )

    def drop(self) -> None:
        """Forget all pictures and results."""
        self._analyses, self._times, self._steps, self._outputs = [], [], None, {}
        self._file = self._pixels = None

    # ------------------------------------------------------------------------ saving

    def check_case(self, wanted: str) -> str:
        """Why the case at hand cannot be saved so, a line in words; empty: it can.

        `wanted` is JSON: "name" of the person, "passphrase", and "now", in ISO 8601, UTC.
        """
        asked = json.loads(wanted)
        try:
            case.check(asked["name"], asked["passphrase"], asked["now"])
        except UserError as error:
            return self._sentence(error)
        return ""

    def case(self, wanted: str, origin: str) -> str:
        """What is in the rows of the sealed file, as JSON; see `case.rows`."""
        asked = json.loads(wanted)
        words = _(case.TITLE), _(case.PLACE)
        return json.dumps(
            case.rows(asked["name"], self._analyses, self._times, origin, asked["now"], *words)
        )

    def form(self) -> str:
        """What a sealed file must be, as JSON; see `case.form`."""
        return json.dumps(case.form())

    def restore(self, kept: str) -> str:
        """Show a kept case again: its analyses are those at hand from now on.

        `kept` is JSON: "person", a record, and "captures", lists of id, lesion and record. Gives
        JSON: "order", the ids of the captures, as they were judged; "taken" and "dating" of the
        last; "name" of the person; "analyses"; "outlines" of each; "said"; or "error".
        """
        given = json.loads(kept)
        try:
            captures = case.captures(given["captures"], self._bundle.sha256)
        except UserError as error:
            return json.dumps({"error": self._sentence(error)})
        self._analyses = [dict(capture.analysis) for capture in captures]
        self._times = [case.Time(capture.taken, capture.dating) for capture in captures]
        return json.dumps(
            {
                "order": [capture.id for capture in captures],
                "taken": self._times[-1].taken,
                "dating": self._times[-1].dating,
                "name": given["person"]["name"],
                "analyses": self._analyses,
                "outlines": [lesion_outline(analysis) for analysis in self._analyses],
                "said": self._said(),
            }
        )

    # ------------------------------------------------------------------------ referring

    def referral_form(self) -> str:
        """As `edge_app.web.referral.form`, as JSON."""
        from edge_app.web import referral  # few visits need it

        return json.dumps(referral.form())

    def referral_rows(self, wanted: str) -> str:
        """All that a referral tells, as JSON: "rows", of label and value; or "error"."""
        from edge_app.web import referral

        try:
            rows = referral.rows(json.loads(wanted), self._analyses, self._times)
            return json.dumps({"rows": rows})
        except UserError as error:
            return json.dumps({"error": self._sentence(error)})

    def referral(self, wanted: str, images: Any) -> bytes:
        """The transaction of what `referral_rows` showed; `images` : JPEG of each picture."""
        from edge_app.web import referral

        pictures = [image.to_bytes() for image in images]
        return referral.transaction(json.loads(wanted), self._analyses, self._times, pictures)

    # ------------------------------------------------------------------------ words

    def _concluded(self, analysis: Analysis) -> dict:
        self._analyses.append(analysis.to_json())
        self._times.append(self._time)
        return {"analysis": self._analyses[-1], "said": self._said()}

    def _said(self) -> dict:
        together = None
        analyses = case.of_one_day(self._analyses, self._times)
        if len(analyses) > 1:
            together = combine(analyses, self._bundle.manifest)
        others = len(self._analyses) - len(analyses)
        view = estimate.result(self._analyses[-1], together, others)
        return {
            "triage": together.triage if together else self._analyses[-1]["triage"],
            "title": view.band.title,
            "advice": view.band.advice,
            "style": view.band.style,
            "shape": view.band.shape,
            "mark": view.band.mark,
            "estimate": view.estimate,
            "several": view.several,
            "remarks": view.remarks,
            "measures": view.measures,
            "classes": view.classes,
            "outline": view.outline,
            "limits": view.limits,
            "versions": view.versions,
            "demonstration": view.demonstration,
            "scale": self._scale(),
            "pictures": len(self._analyses),
            "disclaimer": _(DISCLAIMER),
        }

    def _scale(self) -> str:
        """Why the size is not known, where a reference was asked for and not found."""
        scale = self._analyses[-1]["scale"]
        if scale is None or not scale["reason"]:
            return ""
        return language.sentence(_(scale["reason"]))

    def _hint(self, analysis: Analysis) -> dict:
        found = analysis.to_json()
        remarks = estimate.remarks(found)
        good = analysis.quality.ok and analysis.triage != "retake"
        return {
            "good": good,
            "guidance": _(GUIDE_GOOD) if good else remarks[0],
            "polygons": lesion_outline(found),
            "size": found["size"],
        }

    @staticmethod
    def _sentence(error: UserError) -> str:
        return language.sentence(_(language.error_message(error)))


def _described(name: str, array: np.ndarray) -> list:
    return [name, _address(array), array.dtype.name, list(array.shape)]


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
