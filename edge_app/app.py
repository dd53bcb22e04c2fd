"""The app: its window, what the screens may ask of it, the clock that carries the worker's news."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kivy.app import App
from kivy.clock import Clock
from kivy.core.clipboard import Clipboard
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.modalview import ModalView
from kivy.uix.widget import Widget

from dermedge import UserError
from edge_app import keyboard
from edge_app.background import UNFINISHED, Background
from edge_app.capture.shots import Snapshot
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Worker
from edge_app.capture_flow import CaptureFlow, Screens
from edge_app.first_tune import FirstTune
from edge_app.i18n import language
from edge_app.i18n.language import N_, _
from edge_app.kiosk import Idle, asleep
from edge_app.memory import forget
from edge_app.navigation import Navigator
from edge_app.presentation import messages as present
from edge_app.screens.view import View
from edge_app.session import Session
from edge_app.ui import theme, widgets
from edge_app.ui.entry import forget_typing
from edge_app.ui.focus import move_focus

if TYPE_CHECKING:
    from edge_app.android.phone import Phone

NOTICE_SECONDS = 6.0
WARNING_SECONDS = 15.0  # before a kiosk's screen is cleared
LOCK_SECONDS = 600.0  # without a touch, after which a device of one's own locks its cases
# From the end of a visit until what it left in memory is overwritten: once Kivy has faded the bars
# of what was scrolled, which holds their screen for a second; then for an analysis, or a store
# that was closed, which had still to come to its end.
WIPE_SECONDS = (1.5, 15.0)


class DermedgeApp(App):
    """Shows what `worker` takes and finds. The worker must be started, and stopped afterwards.

    All of it is for the screen's thread, which is the one that calls `run`; `log` may be called
    from others, too.
    """

    title = "dermedge"
    phone: Phone | None = None  # where it runs on one
    unit = NumericProperty(1.0)
    type_unit = NumericProperty(1.0)  # as `unit`, for text
    portrait = BooleanProperty(True)
    demonstration = StringProperty()
    tuning = StringProperty()  # how far it is, while it measures what runs fastest
    notice = StringProperty()  # one line that is shown for some seconds
    styles = ObjectProperty(theme.STYLES["light"], rebind=True)

    def __init__(
        self,
        worker: Worker,
        session: Session,
        log: Callable[..., None] = lambda event, **values: None,
        first_tune: FirstTune | None = None,
    ) -> None:
        language.use(session.settings.spoken())
        super().__init__(styles=theme.STYLES[session.settings.theme])
        self.demonstration = present.demonstration(session.manifest)
        self.worker, self.session, self.log = worker, session, log
        self._first_tune = first_tune
        worker.rotation = session.settings.rotation
        worker.begin_visit(session.visit)
        self.background = Background(session, lambda: self.navigator.showing, self.tell)
        screens = Screens(self._update_live, lambda: self.replace("result"), self.tell)
        self.flow = CaptureFlow(worker, session, self.background, screens, log)
        self.navigator: Navigator  # set with the window, by `build`
        self._idle = Idle(time.monotonic(), **({} if session.kiosk else {"seconds": LOCK_SECONDS}))
        self._asleep = asleep()
        self._dropped: list[str] = []

    def build(self) -> widgets.Frame:
        self._arrange()
        Window.bind(on_resize=self._arrange, on_keyboard=self._key, on_touch_down=self.touch)
        Window.bind(on_drop_file=self._drop)
        # With the next frame: a keyboard gets its place and size after it was added.
        Window.bind(children=lambda *_: Clock.schedule_once(lambda _dt: keyboard.make_room(self)))
        Window.bind(on_request_close=lambda *_, **__: self.session.kiosk)
        self.frame = widgets.Frame()
        self.navigator = Navigator(
            self.session, lambda style: self.styles[style].ground, self.flow.forget
        )
        self.frame.add_widget(self.navigator.manager, 1)
        self.start()
        Clock.schedule_interval(lambda _dt: self.flow.update(), 0)
        Clock.schedule_interval(self._watch_idle, 1)
        if self._first_tune is not None:
            self._first_tune.start()
            self._watch_tuning()
            Clock.schedule_interval(self._watch_tuning, 1)
        return self.frame

    def open_settings(self, *_args: object) -> bool:
        """Kivy's own, by the key F1: not here, where anybody could change or cover the window."""
        return True

    def on_stop(self) -> None:
        """What was typed and a lesion's shot that was begun are saved; then the store is closed.

        Twice is once.
        """
        if not self.keep():
            print("dermedge: what was typed last could not be saved", file=sys.stderr)
        if self._first_tune is not None:
            self._first_tune.stop()
        for hangs in self.worker.stop():
            print(f"dermedge: not waited for any longer: {hangs}", file=sys.stderr)
        self.flow.finish()
        self.background.stop()
        self.session.lock()
        self.session.wait_until_locked()

    def keep(self) -> bool:
        """Save what was typed and has no button for it; whether nothing of that is lost."""
        if App.get_running_app() is not self or not hasattr(self, "navigator"):
            return True  # it has ended, or no window could be made
        return self.navigator.shown is None or self.navigator.shown.keep()

    def _watch_tuning(self, *_args: object) -> bool:
        """Show how far it is; False, which ends the clock's calls, when it is done."""
        message = self._first_tune.message() if self._first_tune is not None else None
        self.tuning = _(message) if message is not None else ""
        return message is not None

    # ------------------------------------------------------------------------ where one is

    def start(self) -> None:
        """The first screen of a new use."""
        self.worker.live(False)
        self.navigator.start("home" if self.session.agreed else "welcome")

    def go(self, name: str, **values: Any) -> None:
        """Show a screen of navigation.SCREENS; `back` leads to the one before."""
        self.navigator.go(name, **values)

    def replace(self, name: str, **values: Any) -> None:
        """The same, but `back` does not lead to the screen that is shown now."""
        self.navigator.replace(name, **values)

    def back(self, to: str = "", sure: bool = False) -> None:
        """To the screen before, or to the newest of that name.

        Where the screen has something to ask first, it stays, unless one is `sure`.
        """
        self.navigator.back(to, sure)

    @property
    def here(self) -> str:
        """Name of the screen that is shown, or that the PIN or passphrase is asked for."""
        return self.navigator.here

    @property
    def screen(self) -> View:
        """The one that is shown."""
        return self.navigator.screen

    def passed(self) -> None:
        """The screen that was asked for may be shown now: the PIN or the passphrase was right."""
        self.navigator.present()

    def restyle(self, **values: Any) -> None:
        """Change settings; language, theme and size of type show at once."""
        self.attempt(lambda: self.session.change(**values))
        self._use_settings()
        self.navigator.hide()
        self.navigator.manager.clear_widgets()
        self.navigator.present()

    def _use_settings(self) -> None:
        """For the screens that are made from now on."""
        settings = self.session.settings
        language.use(settings.spoken())
        self.demonstration = present.demonstration(self.session.manifest)
        self.styles = theme.STYLES[settings.theme]
        self.worker.rotation = settings.rotation
        self._arrange()

    # ------------------------------------------------------------------------ work, and messages

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do something short that may fail; the reason is shown. Whether it went well."""
        try:
            action()
        except (UserError, OSError) as error:
            self.tell(present.error_line(error))
            return False
        return True

    def work(
        self,
        action: Callable[[], object],
        done: Callable[[Any], None] = lambda result: None,
        message: str = "",
        failed: Callable[[str], None] | None = None,
        writes: bool = False,
    ) -> None:
        """Run `action` beside the screen, then `done` with its result, or tell why it failed.

        With a `message` the screen is covered. What is finished after its screen was left, or
        shows something else, is not shown any more; that something which `writes` (changes what
        is kept) went wrong is shown on whatever screen, and after the visit without a word of
        whose it was. An action that only reads is not begun for a visit that has ended. The
        result may carry an `error`: what of a writing action could not be done.
        """
        self.background.run(action, done, message, failed, writes)

    def tell(self, message: str) -> None:
        """Show one line for some seconds."""
        self.notice = message
        Clock.unschedule(self._untell)
        _after(NOTICE_SECONDS, self._untell)

    def _untell(self, _dt: float) -> None:
        self.notice = ""

    def ask(
        self,
        title: str,
        message: str,
        action: str,
        confirm: Callable[[], None],
        style: str = "button",
    ) -> None:
        """A question that covers the screen; `confirm` is called if it is agreed to."""
        widgets.Sheet(
            title=title, message=message, action=action, confirm=confirm, style=style
        ).open(animation=False)

    # ------------------------------------------------------------------------ pictures

    @property
    def snapshot(self) -> Snapshot:
        """What the live screen shows."""
        return self.flow.snapshot

    def take_picture(self) -> None:
        """Capture the frame that is on the screen."""
        if self.here == "live" and self.snapshot.offered:
            self.take(self.snapshot.offered)

    def import_file(self, path: str | Path) -> None:
        """Take a picture file as a capture, or say why not."""
        if self.here != "live":
            words = N_(
                "The file was not taken: press “{check}” or “{another}”, then drop it there."
            )
            self.tell(_(words, check=_("Check a spot"), another=_("New picture")))
        elif not self.take(Path(path)):
            self.tell(_("The file was not taken: another picture is being judged. Try again."))

    def _drop(self, _window: object, path: bytes, *_args: object) -> None:
        """A file is laid upon the window. Of several, each comes alone, before the next frame."""
        self._dropped.append(os.fsdecode(path))
        Clock.schedule_once(self._take_dropped)

    def _take_dropped(self, _dt: float) -> None:
        """Several files might be of several spots."""
        paths, self._dropped = self._dropped, []
        if len(paths) == 1:
            self.import_file(paths[0])
        elif paths:
            self.tell(_("These are several files, and none was taken: drop one picture at a time."))

    def take(self, source: Frame | Path) -> bool:
        """Capture a frame or file: it is saved before its result is shown, where it is a lesion's.

        False, and nothing happens, while another is not done.
        """
        return self.flow.take(source)

    def _update_live(self, snapshot: Snapshot, before: Snapshot) -> None:
        if self.phone is not None and snapshot.result is not before.result:
            self.phone.forget()
        screen = self.navigator.shown
        if screen is not None and screen.live and self.here == screen.name:
            screen.update(snapshot, before)

    # ------------------------------------------------------------------------ keys, time, size

    def _arrange(self, *_args: object) -> None:
        width, height = (side / Metrics.density for side in Window.size)
        self.unit = theme.unit(width, height)
        self.type_unit = self.unit * theme.TEXT_SIZES[self.session.settings.text]
        self.portrait = height > width

    def touch(self, *_args: object) -> None:
        """Somebody is there."""
        self._idle.touch(time.monotonic())

    def slept(self, seconds: float) -> None:
        """The device slept for so long, while the app's clock stood still."""
        self._idle.slept(seconds)
        self._watch_idle(0)

    def _watch_idle(self, _dt: float) -> None:
        before, self._asleep = self._asleep, asleep()
        if self.phone is None:  # that one says it when it is resumed
            self._idle.slept(self._asleep - before)
        left = self._idle.left(time.monotonic())
        if 0 < left <= WARNING_SECONDS and self.session.kiosk and self.here != "welcome":
            self.tell(_("Touch the screen to go on. Else it is cleared."))
        if left > 0:
            return
        if not self.session.kiosk and self.background.covers:
            return  # what somebody waits for here comes to its end first
        self.touch()
        private = self.session.kiosk or self.session.store is not None
        if private and self.here != "welcome":
            self.log("idle reset")
            self.reset()

    def reset(self) -> None:
        """End the visit: clear all that the next person must not see, and begin again.

        It waits for nothing: a store that is to be locked is closed beside the screen.
        """
        for window in list(Window.children):
            if isinstance(window, ModalView):
                window.dismiss(animation=False)
        kept = self.keep()
        self.navigator.hide()
        self.session.leave()
        self.worker.begin_visit(self.session.visit)
        self.background.drop()
        self.flow.reset()
        self.notice = ""
        self.navigator.clear()
        self._use_settings()
        forget_typing()
        if self.session.kiosk:
            Clipboard.copy("")
        if self.phone is not None:
            self.phone.forget()
        for seconds in WIPE_SECONDS:
            _after(seconds, lambda _dt: forget())
        self.start()
        if not kept:
            self.tell(_(UNFINISHED))

    def focus_next(self, step: int = 1) -> None:
        """Move the keyboard to the next thing that can be pressed."""
        move_focus(self.layer(), step)

    def layer(self) -> Widget:
        """What takes keys: a question, if there is one, else the screen."""
        top = Window.children[0]
        return top if isinstance(top, ModalView) else self.screen

    def _key(self, _window: object, key: int, *rest: Any) -> bool:
        self.touch()
        return keyboard.handle(self, key, rest[2] if len(rest) > 2 else ())


def _after(seconds: float, action: Callable[[float], None]) -> None:
    """Call `action` so long after the next frame begins.

    Kivy counts from where the frame at hand began. Where that is long ago, as the device slept,
    what is timed would be due at once: words before they can be read, memory before it is free.
    """
    Clock.schedule_once(lambda _dt: Clock.schedule_once(action, seconds))
