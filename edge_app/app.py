"""The app: which screen is shown, the keyboard, the clock that carries the worker's news."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib import import_module
from pathlib import Path

from kivy.app import App
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.screenmanager import NoTransition, ScreenManager
from kivy.uix.vkeyboard import VKeyboard

from dermedge import UserError
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Snapshot, Worker
from edge_app.kiosk import Idle
from edge_app.look import language, theme, widgets
from edge_app.look.language import _
from edge_app.screens.view import View
from edge_app.session import Session
from edge_app.words import present

# Name: the class in the module of that name in edge_app.screens.
SCREENS = {
    "welcome": "WelcomeScreen",
    "home": "HomeScreen",
    "live": "LiveScreen",
    "result": "ResultScreen",
    "unlock": "UnlockScreen",
    "operator": "OperatorScreen",
    "people": "PeopleScreen",
    "person": "PersonScreen",
    "person_form": "PersonFormScreen",
    "skin_type": "SkinTypeScreen",
    "place": "PlaceScreen",
    "lesion": "LesionScreen",
    "compare": "CompareScreen",
    "files": "FilesScreen",
    "settings": "SettingsScreen",
}
ESCAPE, SPACE, ENTER, TAB = 27, 32, 13, 9
NOTICE_SECONDS = 6.0
WARNING_SECONDS = 15.0  # before a kiosk's screen is cleared
LOCK_SECONDS = 600.0  # without a touch, after which a device of one's own locks its cases


class DermedgeApp(App):
    """Shows what `worker` takes and finds. The worker must be started, and stopped afterwards."""

    title = "dermedge"
    unit = NumericProperty(1.0)
    type = NumericProperty(1.0)  # as `unit`, for text
    portrait = BooleanProperty(True)
    demonstration = StringProperty()
    notice = StringProperty()  # one line that is shown for some seconds
    look = ObjectProperty(theme.LOOKS["light"], rebind=True)

    def __init__(
        self,
        worker: Worker,
        session: Session,
        log: Callable[..., None] = lambda event, **values: None,
    ):
        language.use(session.settings.spoken())
        super().__init__(look=theme.LOOKS[session.settings.theme])
        self.demonstration = present.demonstration(session.manifest)
        self.worker, self.session, self.log = worker, session, log
        worker.turn = session.settings.turn
        self.snapshot = Snapshot()
        self._press = 0  # of the shutter, whose capture is waited for
        self._trail: list[tuple[str, dict]] = []  # the last one is on the screen
        self._shown: View | None = None
        self._pool = ThreadPoolExecutor(1, "dermedge-work")
        self._wait: widgets.Wait | None = None
        self._idle = Idle(time.monotonic(), **({} if session.kiosk else {"seconds": LOCK_SECONDS}))

    def build(self) -> widgets.Frame:
        self._arrange()
        Window.bind(on_resize=self._arrange, on_drop_file=self._drop)
        Window.bind(on_keyboard=self._key, on_touch_down=self.touch)
        # With the next frame: a keyboard gets its place and size after it was added.
        Window.bind(children=lambda *_: Clock.schedule_once(self._make_room))
        Window.bind(on_request_close=lambda *_, **__: bool(Window.fullscreen))
        self.frame = widgets.Frame()
        self.screens = ScreenManager(transition=NoTransition(), pos_hint={"x": 0, "y": 0})
        self.frame.add_widget(self.screens, 1)
        self.start()
        Clock.schedule_interval(self._update, 0)
        Clock.schedule_interval(self._watch_idle, 1)
        return self.frame

    def on_stop(self) -> None:
        self._pool.shutdown()
        self.session.lock()

    # ------------------------------------------------------------------------ where one is

    def start(self) -> None:
        """The first screen of a new use."""
        self.worker.live(False)
        self.worker.reference = self.session.settings.reference
        self._trail.clear()
        self.go("home" if self.session.agreed else "welcome")

    def go(self, name: str, **values) -> None:
        """Show a screen of SCREENS; `back` leads to the one before."""
        self._trail.append((name, values))
        self._present()

    def replace(self, name: str, **values) -> None:
        """The same, but `back` does not lead to the screen that is shown now."""
        if self._trail:
            self._trail.pop()
        self.go(name, **values)

    def back(self, to: str = "", sure: bool = False) -> None:
        """To the screen before, or to the newest of that name.

        Where the screen has something to ask first, it stays, unless one is `sure`.
        """
        if len(self._trail) > 1 and (sure or self._shown.may_leave()):
            self._trail.pop()
            while to and self._trail[-1][0] != to and len(self._trail) > 1:
                self._trail.pop()
            self._present()

    @property
    def here(self) -> str:
        """Name of the screen that is shown."""
        return self._trail[-1][0]

    @property
    def screen(self) -> View:
        """The one that is shown."""
        return self._shown

    def _present(self) -> None:
        name, values = self._trail[-1]
        self._press = 0  # a capture is of the live screen that it was taken on, or nobody's
        operator, unlocked = self._kind(name).needs(**values)
        if operator and not self.session.operator:
            name, values = "operator", {}
        elif unlocked and self.session.store is None:
            name, values = "unlock", {}
        if self._shown is not None:
            self._shown.hide()
            self._shown = None
        if not self.screens.has_screen(name):
            self.screens.add_widget(self._kind(name)(name=name))
        self._shown = self.screens.get_screen(name)
        Window.clearcolor = self.look[self._shown.ground].ground
        self._shown.show(**values)
        self.screens.current = name

    def _kind(self, name: str) -> type[View]:
        return getattr(import_module(f"edge_app.screens.{name}"), SCREENS[name])

    def passed(self) -> None:
        """The screen that was asked for may be shown now: the PIN or the passphrase was right."""
        self._present()

    def restyle(self, **values) -> None:
        """Change settings; language, theme and size of type show at once."""
        self.attempt(lambda: self.session.change(**values))
        settings = self.session.settings
        language.use(settings.spoken())
        self.look = theme.LOOKS[settings.theme]
        self._arrange()
        self._shown.hide()
        self._shown = None
        self.screens.clear_widgets()
        self._present()

    # ------------------------------------------------------------------------ work, and words

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do something short that may fail; the reason is told. Whether it went well."""
        try:
            action()
        except (UserError, OSError) as error:
            self.tell(present.words(error))
            return False
        return True

    def work(
        self,
        action: Callable[[], object],
        done: Callable[[object], None] = lambda result: None,
        words: str = "",
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """Run `action` beside the screen, then `done` with its result, or tell why it failed.

        With `words` the screen is covered until then. What is finished after its screen was left
        is not shown any more.
        """
        screen = self._shown
        if words:
            self._wait = widgets.Wait(words=words)
            self._wait.open(animation=False)

        def report(future) -> None:
            if words and self._wait is not None:
                self._wait.dismiss(animation=False)
                self._wait = None
            error = future.exception()
            if screen is not self._shown:
                return
            if error is None:
                done(future.result())
                return
            if not isinstance(error, (UserError, OSError)):
                traceback.print_exception(error)
            (failed or self.tell)(present.words(error))

        future = self._pool.submit(action)
        future.add_done_callback(lambda it: Clock.schedule_once(lambda _dt: report(it)))

    def tell(self, words: str) -> None:
        """Show one line for some seconds."""
        self.notice = words
        Clock.unschedule(self._untell)
        Clock.schedule_once(self._untell, NOTICE_SECONDS)

    def _untell(self, _dt) -> None:
        self.notice = ""

    def ask(
        self, title: str, words: str, action: str, confirm: Callable[[], None], style="button"
    ) -> None:
        """A question that covers the screen; `confirm` is called if it is agreed to."""
        sheet = widgets.Sheet(title=title, words=words, action=action, confirm=confirm, style=style)
        sheet.open(animation=False)

    # ------------------------------------------------------------------------ pictures

    def take_picture(self) -> None:
        """Capture the frame that is on the screen."""
        if self.here == "live" and self.snapshot.frame:
            self.take(self.snapshot.frame)

    def import_file(self, path: str | Path) -> None:
        """Take a picture file as a capture."""
        if self.here == "live":
            self._prepare()
            self._press = self.worker.import_file(path, self._lesion()) or self._press

    def take(self, frame: Frame) -> None:
        """Capture a frame: it is saved before its result is shown, where it belongs to a lesion."""
        self._prepare()
        self._press = self.worker.capture(frame, self._lesion()) or self._press

    def _prepare(self) -> None:
        self.session.refused = ""
        self.worker.metadata = self.session.metadata(date.today())

    def _lesion(self) -> str:
        return self.session.lesion.id if self.session.lesion else ""

    def _drop(self, _window, path: bytes, *_args) -> None:
        self.import_file(os.fsdecode(path))

    def _update(self, _dt) -> None:
        snapshot, before = self.worker.snapshot(), self.snapshot
        if snapshot is before:
            return
        self.snapshot = snapshot
        capture = snapshot.capture
        if capture and capture is not before.capture and capture.press == self._press:
            self.session.refused = capture.error
            if not capture.error:
                self.session.take(capture)
                self.replace("result")
                return
        if self.here == "live":
            self._shown.update(snapshot, before)

    # ------------------------------------------------------------------------ keys, time, size

    def _arrange(self, *_args) -> None:
        width, height = (side / Metrics.density for side in Window.size)
        self.unit = theme.unit(width, height)
        self.type = self.unit * theme.TEXT_SIZES[self.session.settings.text]
        self.portrait = height > width

    def _make_room(self, _dt) -> None:
        """Above the keyboard of a touch screen, while one is shown."""
        boards = [child for child in Window.children if isinstance(child, VKeyboard)]
        if not boards:
            self.frame.size_hint_y = 1
            return
        self.frame.pos_hint, self.frame.size_hint_y = {"top": 1}, None
        self.frame.height = Window.height - boards[0].height * boards[0].scale
        Clock.schedule_once(lambda _dt: widgets.reveal(self.layer()))

    def touch(self, *_args) -> None:
        """Somebody is there."""
        self._idle.touch(time.monotonic())

    def _watch_idle(self, _dt) -> None:
        left = self._idle.left(time.monotonic())
        if 0 < left <= WARNING_SECONDS and self.session.kiosk and self.here != "welcome":
            self.tell(_("Touch the screen to go on. Else it is cleared."))
        if left > 0:
            return
        self.touch()
        private = self.session.store is not None if not self.session.kiosk else True
        if private and self.here != "welcome":
            self.log("idle reset")
            self.reset()

    def reset(self) -> None:
        """Clear everything that the next person must not see, and begin anew."""
        for window in list(Window.children):
            if isinstance(window, widgets.ModalView):
                window.dismiss(animation=False)
        self.session.leave()
        self.notice = ""
        self._shown.hide()
        self._shown = None
        self.screens.clear_widgets()  # with the pictures and words that they held
        self.worker.forget()
        self.start()

    def focus_next(self, step: int = 1) -> None:
        """Move the keyboard to the next thing that can be pressed."""
        widgets.focus_next(self.layer(), step)

    def layer(self):
        """What takes keys: a question, if there is one, else the screen."""
        top = Window.children[0]
        return top if isinstance(top, widgets.ModalView) else self._shown

    def _key(self, _window, key: int, _code=None, text: str = "", modifiers=()) -> bool:
        self.touch()
        layer = self.layer()
        typing = any(entry.focus for entry in layer.walk() if isinstance(entry, widgets.Entry))
        if key == ESCAPE:
            if isinstance(layer, widgets.Wait):
                pass  # what was begun comes to its end
            elif isinstance(layer, widgets.ModalView):
                layer.dismiss(animation=False)
            elif len(self._trail) > 1:
                self.back()
            else:
                # Kivy ends the app at this key; a kiosk must not end by one.
                return bool(Window.fullscreen)
            return True
        if typing:
            return False
        if key == TAB:
            self.focus_next(-1 if "shift" in modifiers else 1)
            return True
        if key in (ENTER, SPACE):
            for target in widgets.targets(layer):
                if target.lit and not isinstance(target, widgets.Entry):
                    target.dispatch("on_release")
                    return True
        return layer.key(key) if isinstance(layer, View) else False
