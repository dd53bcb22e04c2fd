"""The app: which screen is shown, the keyboard, the clock that carries the worker's news."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from importlib import import_module
from pathlib import Path

from kivy.app import App
from kivy.clock import Clock
from kivy.core.clipboard import Clipboard
from kivy.core.window import Window
from kivy.metrics import Metrics
from kivy.properties import BooleanProperty, NumericProperty, ObjectProperty, StringProperty
from kivy.uix.screenmanager import NoTransition, ScreenManager
from kivy.uix.vkeyboard import VKeyboard

from dermedge import UserError
from edge_app import unforeseen
from edge_app.capture.shots import Result, Shot, Snapshot
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Worker
from edge_app.i18n import language
from edge_app.i18n.language import N_, Message, _
from edge_app.kiosk import Idle
from edge_app.memory import forget
from edge_app.presentation import messages as present
from edge_app.screens.view import View
from edge_app.session import Session, VisitOver
from edge_app.ui import theme, widgets

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
# From the end of a visit until what it left in memory is overwritten; the second time for an
# analysis, or a store that was closed, which had still to come to its end.
WIPE_SECONDS = (0.5, 15.0)
NOT_SAVED = N_("The picture could not be saved: {reason}")
UNFINISHED = N_("Something that was begun before the screen was cleared could not be finished.")


class _Work:
    """An action beside the screen, for one visit; `drop` lets go of all that belongs to it."""

    def __init__(self, app: DermedgeApp, action, done, failed, writes: bool, cover):
        self.session, self.visit, self.screen = app.session, app.session.visit, app.screen
        self.action, self.done, self.failed = action, done, failed
        self.writes, self.cover = writes, cover

    def __call__(self) -> object:
        action, self.action = self.action, None
        if action is None:
            raise VisitOver("the screen was cleared meanwhile", code="visit_over")
        with self.session.on_behalf_of(self.visit):
            return action()

    def uncover(self) -> None:
        if self.cover is not None:
            self.cover.dismiss(animation=False)
            self.cover = None

    def drop(self) -> None:
        """The visit is over. What was begun, and was to change what is kept, goes on."""
        self.uncover()
        self.screen = self.done = self.failed = None
        if not self.writes:
            self.action = None


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
        worker.rotation = session.settings.rotation
        worker.begin_visit(session.visit)
        self.snapshot = Snapshot()
        self._seen = self.snapshot  # the worker's own, of which `snapshot` was made
        self._awaited: Shot | None = None  # whose result this screen waits for
        self._saving = False  # that result is on its way to the disk
        self._trail: list[tuple[str, dict]] = []  # the last one is on the screen
        self._shown: View | None = None
        # Apart, so that nobody's screen waits for a long import of somebody who has left.
        self._readers = ThreadPoolExecutor(1, "dermedge-reading")
        self._writers = ThreadPoolExecutor(1, "dermedge-writing")
        self._works: set[_Work] = set()
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
        """A shot of a lesion that was begun is saved; then the store is closed. Twice is once."""
        for hangs in self.worker.stop():
            print(f"dermedge: not waited for any longer: {hangs}", file=sys.stderr)
        seen, self._seen = self._seen, self.worker.snapshot()
        result = self._seen.result
        if result is not None and result is not seen.result and result.lesion_id:
            unsaved = not result.error and result.visit == self.session.visit
            if unsaved and self._save(result)[2] is not None:
                print("dermedge: the last picture could not be saved", file=sys.stderr)
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown()
        self.session.lock()
        self.session.wait_until_locked()

    # ------------------------------------------------------------------------ where one is

    def start(self) -> None:
        """The first screen of a new use."""
        self.worker.live(False)
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
        self._awaited = None  # a result is for the live screen that its shot was taken on
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
            self.tell(present.error_line(error))
            return False
        return True

    def work(
        self,
        action: Callable[[], object],
        done: Callable[[object], None] = lambda result: None,
        message: str = "",
        failed: Callable[[str], None] | None = None,
        writes: bool = False,
    ) -> None:
        """Run `action` beside the screen, then `done` with its result, or tell why it failed.

        With `words` the screen is covered until then. What is finished after its screen was left
        is not shown any more; that something which `writes` (changes what is kept) went wrong is
        told on whatever screen, and after the visit without a word of whose it was. An action
        that only reads is not begun for a visit that has ended. The result may carry an `error`:
        what of a writing action could not be done.
        """
        cover = widgets.Wait(message=message) if message else None
        if cover is not None:
            cover.open(animation=False)
        work = _Work(self, action, done, failed, writes, cover)
        self._works.add(work)
        future = (self._writers if writes else self._readers).submit(work)
        future.add_done_callback(lambda it: Clock.schedule_once(lambda _dt: self._worked(work, it)))

    def _worked(self, work: _Work, future: Future) -> None:
        work.uncover()
        self._works.discard(work)
        error = future.exception()
        result = future.result() if error is None else None
        partly = getattr(result, "error", None)
        if isinstance(error, VisitOver):
            return
        if error is not None and not isinstance(error, (UserError, OSError)):
            unforeseen.report(error)
        if work.visit != self.session.visit:
            if work.writes and (error or partly):
                self.tell(_(UNFINISHED))
        elif work.screen is self._shown:
            if error is None:
                work.done(result)
            else:
                (work.failed or self.tell)(present.error_line(error))
        elif work.writes and (error or partly):
            self.tell(present.error_line(error or partly))

    def tell(self, message: str) -> None:
        """Show one line for some seconds."""
        self.notice = message
        Clock.unschedule(self._untell)
        Clock.schedule_once(self._untell, NOTICE_SECONDS)

    def _untell(self, _dt) -> None:
        self.notice = ""

    def ask(
        self, title: str, message: str, action: str, confirm: Callable[[], None], style="button"
    ) -> None:
        """A question that covers the screen; `confirm` is called if it is agreed to."""
        sheet = widgets.Sheet(
            title=title, message=message, action=action, confirm=confirm, style=style
        )
        sheet.open(animation=False)

    # ------------------------------------------------------------------------ pictures

    def take_picture(self) -> None:
        """Capture the frame that is on the screen."""
        if self.here == "live" and self.snapshot.frame:
            self.take(self.snapshot.frame)

    def import_file(self, path: str | Path) -> None:
        """Take a picture file as a capture."""
        if self.here == "live":
            self.take(Path(path))

    def take(self, source: Frame | Path) -> None:
        """Capture a frame or file: it is saved before its result is shown, where it is a lesion's.

        Nothing happens while another is not done.
        """
        shot = self.session.shot(source, date.today())
        if not self._saving and self.worker.capture(shot):
            self.session.refused = ""
            self._awaited = replace(shot, source=Path())  # its frame is not held for this

    def _drop(self, _window, path: bytes, *_args) -> None:
        self.import_file(os.fsdecode(path))

    def _update(self, _dt) -> None:
        snapshot, before = self.worker.snapshot(), self._seen
        if snapshot is before:
            return
        self._seen = snapshot
        result = snapshot.result
        if result is not None and result is not before.result:
            self._receive(result)
        self._show_live()

    def _show_live(self) -> None:
        """What the worker has of late; a picture that is being saved keeps the shutter busy."""
        before, now = self.snapshot, self._seen
        self.snapshot = replace(now, busy=True) if self._saving and not now.busy else now
        if self.here == "live" and self.screen.name == "live":
            self._shown.update(self.snapshot, before)

    def _receive(self, result: Result) -> None:
        """A shot was analysed. That of a lesion is shown when it is in the store."""
        if result.visit != self.session.visit:
            return
        awaited = self._awaited is not None and self._awaited.id == result.shot_id
        if result.error:
            if awaited:
                self._awaited = None
                self.session.refused = result.error
        elif not result.lesion_id:
            if awaited:
                self._show(result)
        else:
            self._saving = True
            future = self._writers.submit(self._save, result)
            future.add_done_callback(
                lambda it: Clock.schedule_once(lambda _dt: self._saved(result.shot_id, it))
            )

    def _save(self, result: Result) -> tuple[int, Result | None, Exception | None]:
        """The visit, the result as it is in the store, or why it is not there."""
        try:
            return result.visit, self.session.save(result), None
        except Exception as error:
            if not isinstance(error, (UserError, OSError)):
                unforeseen.report(error)
            return result.visit, None, error

    def _saved(self, shot_id: int, future: Future) -> None:
        visit, result, error = future.result()
        if error is not None:
            self.log("capture failed")
        if visit != self.session.visit:
            if error is not None:
                self.tell(_(UNFINISHED))
            return
        self._saving = False
        awaited = self._awaited is not None and self._awaited.id == shot_id
        if awaited:
            self._awaited = None
        if error is None:
            if awaited:
                self._show(result)
        else:
            message = Message(NOT_SAVED, reason=language.error_message(error))
            if awaited:
                self.session.refused = message
            else:
                self.tell(language.sentence(_(message)))
        self._show_live()

    def _show(self, result: Result) -> None:
        self.session.refused = ""
        self.session.take(result)
        self.replace("result")

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
        if not self.session.kiosk and any(work.cover for work in self._works):
            return  # what somebody waits for here comes to its end first
        self.touch()
        private = self.session.store is not None if not self.session.kiosk else True
        if private and self.here != "welcome":
            self.log("idle reset")
            self.reset()

    def reset(self) -> None:
        """End the visit: clear all that the next person must not see, and begin again.

        It waits for nothing: a store that is to be locked is closed beside the screen.
        """
        for window in list(Window.children):
            if isinstance(window, widgets.ModalView):
                window.dismiss(animation=False)
        self._shown.hide()  # what was typed and is to be kept is kept now
        self._shown = None
        self.session.leave()
        self.worker.begin_visit(self.session.visit)
        for work in self._works:
            work.drop()
        self._awaited, self._saving = None, False
        self._seen = self.snapshot = self.worker.snapshot()
        self.notice = ""
        self.screens.clear_widgets()  # with the pictures and words that they held
        self.screens.transition = NoTransition()  # the old one holds the last two
        widgets.forget_typing()
        if self.session.kiosk:
            Clipboard.copy("")
        for seconds in WIPE_SECONDS:
            Clock.schedule_once(lambda _dt: forget(), seconds)
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
