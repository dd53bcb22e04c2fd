"""One pass through the app without hands: every screen, a screenshot of each, and an audit.

What `edge_app.qa.audit` finds wrong with a screen is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.graphics.opengl import GL_RGBA, GL_UNSIGNED_BYTE, glReadPixels
from kivy.uix.widget import Widget

from dermedge import UserError
from dermedge.image.read import write_png
from edge_app.app import DermedgeApp
from edge_app.i18n.language import _, n_
from edge_app.presentation import skin_type
from edge_app.qa.audit import audit
from edge_app.referral.answers import FOREIGN
from edge_app.store.referrals import StoredAnswer
from edge_app.ui import widgets
from edge_app.ui.body_view import Figure
from edge_app.ui.focus import targets

DEADLINE = 240.0  # s, for the whole way; a slow device analyses a picture in seconds
SETTLE = 4  # frames from a change of screen to its last layout

# Of the person of the tour, and of their store and its export.
CODE, PASSPHRASE = "A-17", "once through every screen"
RECEIVER, SYSTEM = "Skin clinic", "urn:oid:1.2.3"

Step = Callable[[], Any]  # whether it may go on


class Tour:
    """Drives a running app; `fault` is empty when it came through."""

    def __init__(self, app: DermedgeApp, folder: Path):
        self.fault = "the app ended too early"
        self.faults: list[str] = []  # that the audit found
        self.presses = 0
        # From the first press of sending to queued: presses, and s with the time of its pictures.
        self.sent = (0, 0.0)
        self._app = app
        self._folder = folder
        self._steps = self._walk()
        self._until: Step = lambda: True
        self._grab: str | None = None
        app.bind(on_start=self._begin)

    def _begin(self, _app) -> None:
        Window.bind(on_flip=self._flip)
        Clock.schedule_interval(self._step, 0)
        Clock.schedule_once(self._give_up, DEADLINE)

    def _step(self, _dt) -> None:
        if not self._until():
            return
        try:
            self._until = next(self._steps)
        except StopIteration:
            self._app.stop()

    # ------------------------------------------------------------------------ the way

    def _walk(self) -> Iterator[Step]:
        worker = self._app.worker
        self._app.session.settings.auto = False  # the hand is this one
        yield from self._picture("welcome")
        yield from self._press(_("I have read this and I agree."))
        yield from self._press(_("Start"))
        yield from self._picture("home")
        yield from self._press(_("Check a spot"))
        yield from self._wait("no live picture was analysed", lambda: worker.snapshot().analysis)
        yield from self._picture("live")
        yield from self._press(_("Take picture"))
        yield from self._wait("the picture was not captured", lambda: self._app.here == "result")
        yield from self._picture("result")
        if self._find(_("Measures")):
            yield from self._press(_("Measures"))
            yield from self._picture("result-measures")
        if self._find(_("Risk map")):
            yield from self._press(_("Risk map"))
            drawn = lambda: self._app.screen.caption or self._app.notice  # noqa: E731
            yield from self._wait("the risk map was not drawn", drawn)
            yield from self._picture("result-map")
        yield from self._press(_("Details"))
        yield from self._picture("result-details")
        yield from self._keep()
        yield from self._follow()
        yield from self._enter_receiver()
        yield from self._send()
        yield from self._look_after()
        yield from self._delete()
        self.fault = ""

    def _keep(self) -> Iterator[Step]:
        """The picture's owner: a new person, with a new spot."""
        yield from self._press(_("Keep it"))
        for caption in (_("Passphrase or PIN"), _("Once more")):
            yield from self._type(caption, PASSPHRASE)
        yield from self._picture("unlock")
        yield from self._press(_("Create"))
        yield from self._arrive("people")
        yield from self._press(_("Add a person"))
        yield from self._type(_("Name or code"), CODE)
        yield from self._type(_("Year of birth"), "1961")
        yield from self._press(_("Find it by ten questions"))
        for number, question in enumerate(skin_type.QUESTIONS):
            if number == 1:
                yield from self._picture("skin-type")
            yield from self._press(_(question.answers[1]))
        yield from self._picture("skin-type-found")
        yield from self._press(_("Use this type"))
        yield from self._picture("person-form")
        yield from self._press(_("Save"))
        yield from self._arrive("person")
        yield from self._picture("person-keep")
        yield from self._press(_("Add a spot"))
        yield from self._picture("place")
        yield from self._tap("front", 0.79, 0.42)
        yield from self._picture("place-close")
        yield from self._press(_("Keep it here"))
        yield from self._arrive("result")
        yield from self._picture("result-kept")
        yield from self._press(_("Done"))
        yield from self._press(_("People and their spots"))
        yield from self._wait("the person is not listed", lambda: self._find(CODE))
        yield from self._picture("people")
        yield from self._press(CODE)
        yield from self._wait("the spot is not on the map", lambda: self._app.screen.marks)
        yield from self._picture("person")
        yield from self._press(_("Export"))
        yield from self._arrive("files")
        yield from self._press(_("Back"))
        yield from self._wait("the spot is not on the map", lambda: self._app.screen.marks)

    def _follow(self) -> Iterator[Step]:
        """A second picture of the spot, compared with the first; a report of both."""
        worker = self._app.worker
        yield from self._press(self._app.screen.marks[0].key.title)
        yield from self._press(_("On a day"))
        yield from self._picture("day")
        yield from self._press(_("Cancel"))
        yield from self._press(n_("In {count} month", "In {count} months", 3))
        yield from self._press(_("New picture"))
        yield from self._press(_("Take a picture file"))
        yield from self._picture("files-picture")
        yield from self._press(_("Back"))
        yield from self._wait("no live picture was analysed", lambda: worker.snapshot().analysis)
        yield from self._press(_("Take picture"))
        yield from self._arrive("result")
        yield from self._press(_("Done"))
        yield from self._arrive("lesion")
        yield from self._wait(
            "the spot has no two pictures", lambda: self._app.screen.developed == 2
        )
        yield from self._picture("lesion")
        yield from self._press(_("Compare"))
        yield from self._wait("nothing was compared", lambda: self._app.screen.ids.cards.children)
        yield from self._picture("compare")
        yield from self._press(_("Laid over"))
        yield from self._picture("compare-over")
        self._app.session.folder = self._folder
        yield from self._press(_("Report (PDF)"))
        yield from self._press(_("Choose this folder"))
        yield from self._press(_("Name"))
        yield from self._picture("files-report")
        yield from self._press(_("Write the report"))
        yield from self._arrive("compare")
        yield from self._wait("no report was written", lambda: [*self._folder.glob("case-*.pdf")])

    def _enter_receiver(self) -> Iterator[Step]:
        """Who takes cases: a folder, which needs no network."""
        stick = self._folder / "stick"
        stick.mkdir(mode=0o700, exist_ok=True)
        self._app.back(to="home")
        self._app.notice = ""
        yield from self._press(_("Settings"))
        yield from self._press(_("Receivers"))
        yield from self._arrive("receivers")
        yield from self._press(_("Add a receiver"))
        yield from self._picture("receiver-new")
        yield from self._type(_("Name of the receiver"), RECEIVER)
        yield from self._press(_("Folder or stick"))
        self._app.session.folder = stick
        yield from self._press(_("Choose the folder"))
        yield from self._press(_("Choose this folder"))
        yield from self._arrive("receiver")
        secret = _("Passphrase that opens the files, agreed on with the receiver")
        yield from self._type(secret, PASSPHRASE)
        yield from self._type(_("Whose numbers of people it uses (a URI), if any"), SYSTEM)
        yield from self._press(_("Test it"))
        yield from self._wait("no receiver was tested", lambda: self._app.screen.fine)
        self._app.screen.ids.page.ids.scroll.scroll_y = 0
        yield from self._picture("receiver")
        yield from self._press(_("Save"))
        yield from self._arrive("receivers")
        self._app.notice = ""
        yield from self._wait("no receiver is listed", lambda: _find(self._app.layer(), RECEIVER))
        yield from self._picture("receivers")

    def _send(self) -> Iterator[Step]:
        """The spot to the dermatologist; the hand's presses and seconds are counted."""
        app = self._app
        app.back(to="home")
        yield from self._press(_("People and their spots"))
        yield from self._press(CODE)
        yield from self._wait("the spot is not on the map", lambda: app.screen.marks)
        yield from self._press(app.screen.marks[0].key.title)
        yield from self._press(_("Send to a dermatologist"))
        begun, self.presses = time.monotonic(), 1
        yield from self._press(_("Close-up"))
        yield from self._press(_("No"))
        yield from self._picture("send-pictures")
        yield from self._press(_("Next"))
        yield from self._wait("no history was asked for", lambda: _find(app.layer(), _("Yes")))
        yield from self._press(_("one to twelve months ago"))
        yield from self._press(_("No to what is open here"))
        yield from self._picture("send-history")
        yield from self._press(_("Next"))
        agree = _("The person has read or heard this, and agrees.")
        yield from self._wait("no consent was asked for", lambda: _find(app.layer(), agree))
        app.go("scan", draft=app.screen._draft)
        yield from self._wait("no live picture", lambda: app.worker.snapshot().preview is not None)
        yield from self._picture("scan")
        app.back()
        yield from self._press(_("Does the person have to be seen, and how soon?"))
        yield from self._picture("send-question")
        yield from self._press(agree)
        app.screen.ids.page.ids.scroll.scroll_y = 0
        yield from self._picture("send-consent")
        yield from self._press(_("Next"))
        yield from self._wait("nothing was prepared", lambda: _find(app.layer(), _("Send")))
        yield from self._wait("nothing may be sent", lambda: app.screen.prepared)
        yield from self._picture("send-preview")
        app.screen.ids.page.ids.scroll.scroll_y = 0.5
        yield from self._picture("send-preview-picture")
        yield from self._press(_("Send"))
        yield from self._arrive("referral")
        self.sent = (self.presses, time.monotonic() - begun)
        yield from self._wait("nothing was received", lambda: app.screen.state == "received")
        app.notice = ""
        yield from self._picture("referral")
        yield from self._answered()

    def _answered(self) -> Iterator[Step]:
        """An answer, as one comes from outside."""
        app = self._app
        store = app.session.opened()
        (referral,) = store.mail.referrals()
        words = "Irregular network at the edge. Please take one more picture, closer."
        store.mail.add_answer(
            StoredAnswer("", referral.id, "report/1", "1", words, "Dr. Bea Example",
                         wants_better_picture=True)
        )  # fmt: skip
        foreign = {"code": "answer-foreign", "what": "DiagnosticReport/12"}
        store.mail.note_faults([UserError(FOREIGN, **foreign)])
        yield from self._wait("no answer is shown", lambda: app.screen.state == "answered")
        yield from self._picture("referral-answered")
        yield from self._press(_("Back"))
        yield from self._wait("the answer is not on the spot", lambda: app.screen.developed == 2)
        yield from self._picture("lesion-answered")
        app.back(to="home")
        yield from self._press(_("Sent to a dermatologist"))
        yield from self._wait("nothing is listed", lambda: app.screen.filled)
        yield from self._picture("referrals")
        yield from self._press(_("Back"))
        yield from self._wait(
            "nothing was counted", lambda: _find(app.layer(), _("Sent to a dermatologist"))
        )
        yield from self._picture("home-sent")

    def _look_after(self) -> Iterator[Step]:
        """Settings, and all cases in one file."""
        self._app.back(to="home")
        self._app.notice = ""  # it covers what is below it for some seconds
        yield from self._press(_("Settings"))
        yield from self._picture("settings")
        yield from self._press(_("Size reference"))
        yield from self._picture("settings-size")
        yield from self._press(_("Back"))
        yield from self._press(_("This device"))
        yield from self._press(_("Self-check"))
        yield from self._wait("nothing was checked", lambda: self._app.screen.checked)
        yield from self._picture("settings-device")
        yield from self._press(_("Back"))
        yield from self._press(_("About"))
        yield from self._picture("settings-about")
        yield from self._press(_("Back"))
        yield from self._press(_("Cases on this device"))
        yield from self._picture("settings-cases")
        yield from self._press(_("Export everything"))
        yield from self._wait("the folder was not read", lambda: self._app.screen.ready)
        yield from self._picture("files-folder")
        yield from self._press(_("Choose this folder"))
        for caption in (_("Passphrase of the file"), _("Once more")):
            yield from self._type(caption, PASSPHRASE)
        yield from self._picture("files-export")
        yield from self._press(_("Export"))
        yield from self._arrive("settings")
        self._app.notice = ""
        yield from self._press(_("Audit trail"))
        yield from self._picture("settings-audit")

    def _delete(self) -> Iterator[Step]:
        """The spot, then lock what is left."""
        self._app.back(to="home")
        yield from self._press(_("People and their spots"))
        yield from self._press(CODE)
        yield from self._wait("the spot is not on the map", lambda: self._app.screen.marks)
        yield from self._press(self._app.screen.marks[0].key.title)
        yield from self._press(_("Delete this spot"))
        yield from self._picture("delete")
        yield from self._press(_("Delete"))
        yield from self._arrive("person")
        self._app.back(to="home")
        yield from self._press(_("Settings"))
        yield from self._press(_("Cases on this device"))
        yield from self._press(_("Lock now"))
        yield from self._arrive("home")
        self._app.notice = ""
        yield from self._picture("home-locked")

    # ------------------------------------------------------------------------ hands and eyes

    def _wait(self, fault: str, until: Step) -> Iterator[Step]:
        self.fault = fault
        yield until
        self.fault = "the app ended too early"

    def _press(self, text: str) -> Iterator[Step]:
        """Press what says `text`, or hints at it, as soon as it is there."""
        yield from self._wait(f"nothing to press says '{text}'", lambda: self._find(text))
        target = self._find(text)
        target.dispatch("on_press")
        target.dispatch("on_release")
        self.presses += 1
        yield lambda: True

    def _type(self, caption: str, text: str) -> Iterator[Step]:
        """Type into the field of that caption."""
        yield from self._wait(f"no field is called '{caption}'", lambda: self._field(caption))
        field = self._field(caption)
        field.ids.entry.text = text
        yield lambda: True

    def _tap(self, view: str, x: float, y: float) -> Iterator[Step]:
        """Press a place of the body map."""
        figures = [it for it in targets(self._app.layer()) if isinstance(it, Figure)]
        next(it for it in figures if it.view == view).tap(x, y)
        yield lambda: True

    def _arrive(self, name: str) -> Iterator[Step]:
        """At that screen, as soon as what leads there is done."""
        yield from self._wait(
            f"the screen '{name}' did not come",
            lambda: self._app.here == name == self._app.screen.name,
        )

    def _find(self, text: str) -> Any:
        return _find(self._app.layer(), text)

    def _field(self, caption: str) -> Any:
        return _field(self._app.layer(), caption)

    def _picture(self, name: str) -> Iterator[Step]:
        """Let the screen come to rest, audit it, write NAME.png."""
        for _frame in range(SETTLE):
            yield lambda: True
        self._grab = f"{name}.png"
        Window.canvas.ask_update()  # what does not change is not drawn again
        yield lambda: self._grab is None

    def _flip(self, _window) -> None:
        # Only between drawing and flipping is the whole picture in the buffer that is read.
        if self._grab is None:
            return
        width, height = Window.system_size
        data = glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE)
        pixels = np.frombuffer(data, np.uint8).reshape(height, width, 4)
        shot = np.ascontiguousarray(pixels[::-1, :, :3])
        write_png(self._folder / self._grab, shot, private=True)
        found = audit(self._app.layer(), self._app.styles, shot)
        self.faults += [f"{self._grab}: {fault}" for fault in found]
        self._grab = None

    def _give_up(self, _dt) -> None:
        source = self._app.worker.snapshot().fault
        self.fault = f"{self.fault} within {DEADLINE:.0f} s. {source}".strip()
        self._app.stop()


def _find(layer: Widget, text: str) -> Any:
    """What can be pressed and says `text`, or hints at it; None: nothing does."""
    for target in targets(layer):
        if text in [getattr(target, name, "") for name in ("text", "hint", "title")]:
            return target
    return None


def _field(layer: Widget, caption: str) -> Any:
    """The field of that caption; None: there is none."""
    for widget in layer.walk():
        if isinstance(widget, widgets.Field) and widget.caption == caption:
            return widget
    return None
