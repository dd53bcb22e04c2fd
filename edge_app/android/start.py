"""Starts the app on Android: private folders, the camera, then `dermedge app`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from dermedge.cli import guarded
from edge_app.android.system import System
from edge_app.capture import camera2, sources

if TYPE_CHECKING:
    from edge_app.app import DermedgeApp


def system() -> System:
    """Android, by python-for-android's own modules. The main thread."""
    from android.activity import bind
    from android.runnable import run_on_ui_thread
    from jnius import autoclass

    return System(autoclass, bind, run_on_ui_thread)


def arguments(phone: System) -> list[str]:
    """Of `dermedge app`; what is kept lies where no other app reaches it. Python, which Android
    tells no language, learns it here.
    """
    folder = phone.private_folder()
    # Where caches and settings go that know nothing of Android.
    os.environ.update(HOME=str(folder), XDG_CACHE_HOME=str(phone.cache_folder()))
    os.environ.update(XDG_DATA_HOME=str(folder), TMPDIR=str(phone.cache_folder()))
    spoken = phone.languages()
    os.environ.update(LANG=spoken[0], LANGUAGE=":".join(spoken))
    return ["--source", f"{camera2.PREFIX}:back", "--home", str(folder / "dermedge")]


def cameras(phone: System) -> camera2.Cameras:
    """Registered as the source "camera2:back"."""
    made = camera2.Cameras(phone.camera, phone.camera_allowed, phone.ask_for_camera)
    sources.register(camera2.PREFIX, made.open)
    return made


def main() -> int:
    """Run the app; its exit status."""
    found = system()
    words = arguments(found)
    made = cameras(found)

    def run() -> int:
        from edge_app.commands import APP, run

        parser = argparse.ArgumentParser(prog="dermedge app")
        APP.arguments(parser)
        return run(parser.parse_args(words), lambda app: _attach(found, made, app))

    return guarded(run, "dermedge app")


def _attach(found: System, made: camera2.Cameras, app: DermedgeApp) -> None:
    from kivy.core.window import Window

    from edge_app.android.phone import Phone

    Phone(found, made).attach(app, Window)


if __name__ == "__main__":
    sys.exit(main())
