"""What the app asks Android for, by pyjnius. On a desktop nothing here is imported."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dermedge import UserError
from edge_app.i18n.language import N_

CAMERA = "android.permission.CAMERA"
GRANTED = 0  # PackageManager.PERMISSION_GRANTED
OK = -1  # Activity.RESULT_OK
SECURE = 0x2000  # WindowManager.LayoutParams.FLAG_SECURE
INSETS_FROM = 30  # API level of WindowInsets.getInsets
CAMERA_ASKED, FILE_ASKED = 71, 72  # numbers that tell the system's answers apart
CHUNK = 1 << 20
UNREADABLE = N_("The chosen file cannot be read: {reason}")
Answer = Path | UserError | None
_CLASSES = {
    "PythonActivity": "org.kivy.android.PythonActivity",
    "Camera": "org.dermedge.Camera",
    "Picture": "org.dermedge.Picture",
    "Intent": "android.content.Intent",
    "Version": "android.os.Build$VERSION",
    "Type": "android.view.WindowInsets$Type",
    "LocaleList": "android.os.LocaleList",
}


class System:
    """Made in the main thread, which alone sees the app's classes; used by any."""

    def __init__(
        self,
        find: Callable[[str], Any],
        bind: Callable[..., None],
        on_screen: Callable[[Callable[[], None]], Callable[[], None]],
    ):
        """Load the classes.

        Parameters
        ----------
        find : a Java class by its name, `jnius.autoclass`.
        bind : `android.activity.bind`.
        on_screen : `android.runnable.run_on_ui_thread`.
        """
        self._java = SimpleNamespace(**{name: find(path) for name, path in _CLASSES.items()})
        self._activity = self._java.PythonActivity.mActivity
        self._on_screen = on_screen
        self._wanted: tuple[Path, Callable[[Answer], None]] | None = None
        bind(on_activity_result=self._answered)

    # ------------------------------------------------------------------------ folders

    def private_folder(self) -> Path:
        """No other app and no cable reaches it; gone with the app."""
        return Path(self._activity.getFilesDir().getAbsolutePath())

    def cache_folder(self) -> Path:
        """Likewise; the system may empty it."""
        return Path(self._activity.getCacheDir().getAbsolutePath())

    def documents(self) -> Path:
        """For what a person writes to take along: a cable and some file managers reach it."""
        return Path(self._activity.getExternalFilesDir("Documents").getAbsolutePath())

    # ------------------------------------------------------------------------ language

    def languages(self) -> list[str]:
        """Those of the phone's settings, the one that is liked best first, as "de-AT"."""
        return str(self._java.LocaleList.getDefault().toLanguageTags()).split(",")

    # ------------------------------------------------------------------------ camera

    def camera_allowed(self) -> bool:
        return bool(self._activity.checkSelfPermission(CAMERA) == GRANTED)

    def ask_for_camera(self) -> None:
        self._activity.requestPermissions([CAMERA], CAMERA_ASKED)

    def camera(self, width: int, height: int) -> Any:
        """`org.dermedge.Camera`, as `edge_app.capture.camera2.Camera`."""
        return self._java.Camera(self._activity, width, height)

    # ------------------------------------------------------------------------ window

    def hide_from_others(self) -> None:
        """No screenshot, and nothing of the screen in the list of open apps."""
        self._on_screen(lambda: self._activity.getWindow().addFlags(SECURE))()

    def margins(self) -> tuple[int, int, int, int]:
        """What bars and cut-outs take of the window at the left, top, right and bottom, px."""
        insets = self._activity.getWindow().getDecorView().getRootWindowInsets()
        if insets is None:  # the window is not there yet
            return 0, 0, 0, 0
        if self._java.Version.SDK_INT >= INSETS_FROM:
            kinds = self._java.Type
            edges = insets.getInsets(kinds.systemBars() | kinds.displayCutout())
            return edges.left, edges.top, edges.right, edges.bottom
        return (
            insets.getSystemWindowInsetLeft(),
            insets.getSystemWindowInsetTop(),
            insets.getSystemWindowInsetRight(),
            insets.getSystemWindowInsetBottom(),
        )

    # ------------------------------------------------------------------------ files

    def pick(self, kind: str, to: Path, done: Callable[[Answer], None]) -> None:
        """Let the person choose a file, with the system's own screen.

        Parameters
        ----------
        kind : MIME type, as "image/*".
        to : folder of the copy, which is the caller's to delete.
        done : is given the copy, None where nothing was chosen, or why there is no copy. In the
            system's thread.
        """
        self._wanted = to, done
        intent = self._java.Intent("android.intent.action.OPEN_DOCUMENT")
        intent.addCategory("android.intent.category.OPENABLE")
        intent.setType(kind)
        self._activity.startActivityForResult(intent, FILE_ASKED)

    def _answered(self, number: int, result: int, intent: Any) -> None:
        if number != FILE_ASKED or self._wanted is None:
            return
        (folder, done), self._wanted = self._wanted, None
        if result != OK or intent is None:
            done(None)
            return
        try:
            done(self._copied(intent.getData(), folder))
        # What another app's files raise, through Java, shares no base class.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            done(UserError(UNREADABLE, code="picked", reason=reason))

    def _copied(self, uri: Any, folder: Path) -> Path:
        handle = self._activity.getContentResolver().openFileDescriptor(uri, "r")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "chosen"
        # The descriptor is ours from here on, so that Java does not close it a second time.
        with open(handle.detachFd(), "rb") as source, path.open("wb") as copy:
            while chunk := source.read(CHUNK):
                copy.write(chunk)
        return path


def seconds() -> float:
    """Since the device was started, with the time that it slept; `time.monotonic` leaves it out."""
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(time.CLOCK_BOOTTIME)
