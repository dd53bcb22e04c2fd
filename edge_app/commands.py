"""The app's subcommand."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermedge import UserError
from dermedge.cli import Command, ask_secret
from dermedge.cli.options import bundle_arguments, open_bundle
from edge_app.folders import data_folder, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from dermedge.analyzer import Analyzer
    from dermedge.bundle.bundle import Bundle
    from edge_app.app import DermedgeApp
    from edge_app.qa.measure import Meter
    from edge_app.qa.tour import Tour
    from edge_app.self_check import Check

    Attach = Callable[[DermedgeApp], None]


def _arguments(parser: argparse.ArgumentParser) -> None:
    from edge_app.i18n.language import LANGUAGES
    from edge_app.ui.theme import TEXT_SIZES, THEMES

    bundle_arguments(parser)
    parser.add_argument(
        "--source",
        metavar="SPEC",
        help="camera number, camera device, GStreamer pipeline, video file, picture file or folder "
        "of pictures (default: 0, the first camera; a drawn picture for --screenshot, --measure "
        "and --soak)",
    )
    parser.add_argument(
        "--rotate",
        type=int,
        choices=(0, 90, 180, 270),
        help="degrees by which the live picture is turned clockwise: where it lies on its side or "
        "stands on its head (default: as it was left in the app)",
    )
    parser.add_argument(
        "--home",
        metavar="DIR",
        help=f"where encrypted cases and settings are kept (default: {in_words()}); not for "
        "--screenshot, --measure and --soak; nothing is sent but what a person sends",
    )
    parser.add_argument(
        "--captures",
        metavar="DIR",
        help="for collecting pictures: write each capture that belongs to no case, and its "
        "analysis, into this folder, unencrypted",
    )
    parser.add_argument(
        "--tune",
        choices=("auto", "never"),
        default="auto",
        help="auto: at the first start with a bundle, or another runtime, measure beside the "
        "screens what runs it fastest, once, for a minute at most, while no picture is analysed; "
        "not for --screenshot, --measure and --soak (default: auto)",
    )
    window = parser.add_mutually_exclusive_group()
    window.add_argument("--size", default="1280x800", metavar="WxH", help="of the window, px")
    window.add_argument("--fullscreen", action="store_true", help="fill the screen")
    parser.add_argument(
        "--screenshot",
        metavar="DIR",
        help="go through every screen with a store for the test, write a picture of each, audit "
        "its text and targets, end; status 1 where something is wrong",
    )
    for name, values, meaning in (
        ("language", LANGUAGES, "of what the screens say"),
        ("theme", THEMES, "of the screens"),
        ("text", TEXT_SIZES, "size of the text"),
    ):
        parser.add_argument(
            f"--{name}",
            choices=tuple(values),
            help=f"{meaning}, for --screenshot alone (default: as set in the app)",
        )
    _mode_arguments(parser)


def _mode_arguments(parser: argparse.ArgumentParser) -> None:
    """What it does instead of, or beside, opening a window for somebody."""
    kiosk = parser.add_mutually_exclusive_group()
    kiosk.add_argument(
        "--kiosk",
        action="store_true",
        help="full screen, no key that ends it, self-check at start, consent of each person, an "
        "operator's PIN, a log without personal data",
    )
    kiosk.add_argument(
        "--self-check",
        action="store_true",
        help="try bundle, speed, camera, disk and clock, print what was found, end; status 1 for a "
        "fault",
    )
    kiosk.add_argument(
        "--set-pin",
        action="store_true",
        help="choose the operator's PIN of the kiosk of this --home, typed at the terminal, end; "
        "without one nobody enters the operator's area",
    )
    kiosk.add_argument(
        "--systemd",
        action="store_true",
        help="print a systemd unit that starts the kiosk with the other options given, end",
    )
    parser.add_argument(
        "--soak",
        type=int,
        metavar="N",
        help="take N pictures into an encrypted store for the test, through all screens; prints "
        "memory, threads, handles and times as JSON (Linux)",
    )
    parser.add_argument(
        "--measure",
        type=float,
        metavar="SECONDS",
        help="measure the live picture for so long, then ten captures; prints the figures as JSON. "
        "--source may be a photograph: a video at 30 fps is made of it",
    )


def run(args: argparse.Namespace, attach: Attach = lambda app: None) -> int:
    """`dermedge app`; its exit status. `attach` is given the app before it runs."""
    size = re.fullmatch(r"([1-9]\d{2,4})x([1-9]\d{2,4})", args.size)
    if not size:
        raise UserError(f"--size is width x height in px, as 1280x800, not '{args.size}'")
    if args.soak is not None and args.soak < 1:
        raise UserError(f"--soak must be 1 or more pictures, got {args.soak}")
    if args.measure is not None and not 0 < args.measure < float("inf"):
        raise UserError(f"--measure must be a number of seconds above 0, got {args.measure:g}")
    measured = args.measure or args.soak
    drawn = bool(measured or args.screenshot) and args.source is None
    if args.source is None:
        args.source = "0"
    if args.systemd:
        from edge_app.systemd import service_options, unit

        parser = argparse.ArgumentParser()
        _arguments(parser)
        print(unit(service_options(parser, args)), end="")
        return 0
    if args.set_pin:
        return _set_pin(_home(args))
    if args.self_check:
        return 0 if all(check.ok for check in _self_check(args)) else 1
    if args.screenshot and measured:
        raise UserError("--screenshot and --measure or --soak are two runs")
    if args.home and (args.screenshot or measured):
        # Else it would seal the operator's own cases under the passphrase of a test.
        raise UserError("--screenshot, --measure and --soak keep a store of their own: no --home")
    for name in ("language", "theme", "text"):
        if getattr(args, name) and not args.screenshot:
            raise UserError(f"--{name} is for --screenshot alone: choose it in the app's settings")
    if args.soak and sys.platform != "linux":
        raise UserError("--soak counts memory and handles in /proc: it needs Linux")
    _check_display()
    with tempfile.TemporaryDirectory(prefix="dermedge-") as folder:
        return _show(args, (int(size[1]), int(size[2])), folder, drawn, attach)


def _show(
    args: argparse.Namespace, size: tuple[int, int], folder: str, drawn: bool, attach: Attach
) -> int:
    """Open the window, until it is closed. `drawn` : a drawn picture stands for the camera."""
    from edge_app import memory, unforeseen

    trial = bool(args.measure or args.soak or args.screenshot)
    memory.prepare()
    faults = _faults_at_start(args, trial)
    bundle, analyzer = _open_analyzer(args)
    if args.screenshot:
        from edge_app.browser import make_private

        make_private(Path(args.screenshot))
    _configure_kivy(folder, *size, args.fullscreen or args.kiosk, args.kiosk)
    source = _source(args, folder, drawn)
    app = _make_app(args, bundle, analyzer, faults, source, folder, trial)
    attach(app)
    driver = _driver(args, app)
    if not trial:  # no picture of a person is in those
        unforeseen.keep_quiet()
    app.worker.start()
    try:
        app.run()
    except Exception as error:
        if trial:
            raise
        unforeseen.report(error)
        return 1
    finally:
        app.on_stop()  # Kivy leaves it out where an error ended the app
    return _reported(args, driver)


def _faults_at_start(args: argparse.Namespace, trial: bool) -> list[Check]:
    """What the operator must know before the first picture is taken."""
    from edge_app.kiosk import PIN_FILE, Pin
    from edge_app.self_check import check_clock, check_pin

    if args.kiosk:
        # Its lines stand in the system's journal, too; a camera may come later.
        faults = [check for check in _self_check(args) if not check.ok]
        pin = check_pin(Pin(_home(args) / PIN_FILE))
        if not pin.ok:
            print(_line(pin), flush=True)
            faults.append(pin)
        return faults
    if trial:
        return []
    clock = check_clock(_home(args))
    return [] if clock.ok else [clock]


def _open_analyzer(args: argparse.Namespace) -> tuple[Bundle, Analyzer]:
    """The bundle with all its graphs, and those of them that run, loaded."""
    from edge_app.capture.sources import is_camera, open_source
    from edge_app.networks import load_analyzer

    bundle = open_bundle(args)
    analyzer = load_analyzer(bundle)
    sys.setswitchinterval(0.001)  # s that the screen waits for the analysis to let go of Python
    # A camera may come later; a file that is not there will not.
    if not is_camera(args.source) and not (args.measure or args.soak):
        open_source(args.source).close()
    return bundle, analyzer


def _source(args: argparse.Namespace, folder: str, drawn: bool) -> str:
    """What to open: of a photograph that is measured, a film is made in `folder`."""
    from dermedge.data.synthetic import draw
    from dermedge.image.read import EXTENSIONS, write_png
    from edge_app.capture.sources import film

    source = args.source
    if drawn:
        print("no --source: a drawn picture stands for the camera", file=sys.stderr)
        source = os.path.join(folder, "drawn.png")
        write_png(source, draw(3, "phone", (480, 640), label="mel", artefacts=()).image)
    if (args.measure or args.soak or drawn) and Path(source).suffix.lower() in EXTENSIONS:
        photo, source = source, os.path.join(folder, "film.avi")
        film(Path(photo), Path(source))
    return source


def _make_app(
    args: argparse.Namespace,
    bundle: Bundle,
    analyzer: Analyzer,
    faults: list[Check],
    source: str,
    folder: str,
    trial: bool,
) -> DermedgeApp:
    """The app with its session and worker; a trial keeps its store in `folder`."""
    from edge_app.app import DermedgeApp
    from edge_app.capture.sources import open_source
    from edge_app.capture.worker import Worker
    from edge_app.first_tune import FirstTune
    from edge_app.kiosk import Journal
    from edge_app.networks import load_analyzer
    from edge_app.session import Session

    home = Path(folder, "app") if trial else _home(args)
    session = Session(home, analyzer.bundle.manifest, args.kiosk)
    session.faults = faults
    for name in ("language", "theme", "text"):
        if args.screenshot and getattr(args, name):
            setattr(session.settings, name, getattr(args, name))
    if args.rotate is not None:
        session.settings.rotation = args.rotate
    log: dict[str, Any] = {}
    if args.kiosk:
        journal = Journal(session.log_path)
        journal.write("start")
        log = {"log": journal.write}
    captures = Path(args.captures) if args.captures else None
    worker = Worker(partial(open_source, source), analyzer, captures, **log)
    first_tune = None
    if args.tune == "auto" and not trial:
        first_tune = FirstTune(
            bundle, lambda: worker.resting, lambda: worker.use(load_analyzer(bundle)), **log
        )
    return DermedgeApp(worker, session, **log, first_tune=first_tune)


def _driver(args: argparse.Namespace, app: DermedgeApp) -> Tour | Meter | None:
    """What goes through the screens by itself, where that was asked for."""
    if args.screenshot:
        from edge_app.qa.tour import Tour

        return Tour(app, Path(args.screenshot))
    if args.measure or args.soak:
        from edge_app.qa.measure import Meter

        return Meter(app, args.measure or 5, args.soak or 10, bool(args.soak))
    return None


def _reported(args: argparse.Namespace, driver: Tour | Meter | None) -> int:
    """Print what the driver found; the command's exit status."""
    if driver is None:
        return 0
    from edge_app.qa.measure import Meter

    if driver.fault:
        print(f"dermedge: self check failed: {driver.fault}", file=sys.stderr)
        return 1
    if isinstance(driver, Meter):
        print(json.dumps(driver.report(), indent=1))
        return 0
    for fault in driver.faults:
        print(fault, file=sys.stderr)
    shots, (presses, seconds) = Path(args.screenshot), driver.sent
    print(f"sent to a dermatologist: {presses} presses, {seconds:.0f} s with the pictures of it")
    print(f"{len(list(shots.glob('*.png')))} screens in {shots}, {len(driver.faults)} faults")
    return 1 if driver.faults else 0


def _home(args: argparse.Namespace) -> Path:
    """Where cases and settings are kept."""
    return Path(args.home or data_folder())


def _self_check(args: argparse.Namespace) -> list[Check]:
    """Print what the self-check finds, and return it."""
    from edge_app.capture.sources import open_source
    from edge_app.networks import load_analyzer
    from edge_app.self_check import self_check

    checks, folder = [], _home(args)
    for check in self_check(
        partial(open_source, args.source), lambda: load_analyzer(open_bundle(args)), folder
    ):
        checks.append(check)
        print(_line(check), flush=True)
    return checks


def _line(check: Check) -> str:
    return f"{check.name:8} {'ok' if check.ok else 'FAULT':6} {check.message}"


def _set_pin(folder: Path) -> int:
    from edge_app.browser import make_private
    from edge_app.kiosk import set_pin

    make_private(folder)
    set_pin(folder, ask_secret)
    print(f"the operator's PIN is set in {folder}")
    return 0


def _check_display() -> None:
    if not sys.platform.startswith("linux") or os.environ.get("SDL_VIDEODRIVER"):
        return
    # Left alone, SDL would draw into memory where no display answers, and nobody would see it.
    for variable, driver in (("WAYLAND_DISPLAY", "wayland"), ("DISPLAY", "x11")):
        if os.environ.get(variable):
            os.environ["SDL_VIDEODRIVER"] = driver
            return
    raise UserError(
        "there is no display: start it on a desktop, or set SDL_VIDEODRIVER=kmsdrm on a device "
        "without one"
    )


def _configure_kivy(
    home: str, width: int, height: int, fullscreen: bool, kiosk: bool = False
) -> None:
    """Set Kivy up before its first import: ours are the arguments, the output and the folders."""
    os.environ.update(
        KIVY_HOME=home,
        KIVY_NO_ARGS="1",
        KIVY_NO_CONFIG="1",
        KIVY_NO_FILELOG="1",
        KIVY_WINDOW="sdl2",  # the next in Kivy's row ends the process where no X server answers
        KIVY_LOG_MODE="PYTHON",  # its own mode would take over standard error
    )
    logging.getLogger("kivy").addHandler(logging.NullHandler())
    logging.getLogger("kivy").propagate = False
    from kivy.config import Config

    Config.set("graphics", "fullscreen", "auto" if fullscreen else "0")
    # A touch screen of its own brings no keys.
    Config.set("kivy", "keyboard_mode", "systemanddock" if kiosk else "system")
    Config.set("graphics", "width", str(width))
    Config.set("graphics", "height", str(height))
    # Twice to three times the work where Mesa draws in software, for edges that are smooth already.
    Config.set("graphics", "multisamples", "0")
    Config.set("graphics", "minimum_width", "320")
    Config.set("graphics", "minimum_height", "480")
    # No red dots where a right mouse button is pressed.
    Config.set("input", "mouse", "mouse,disable_multitouch")
    from kivy.core.window import Window

    if Window is None:
        raise UserError(
            f"no window can be opened (SDL_VIDEODRIVER={os.environ.get('SDL_VIDEODRIVER', '')}): "
            "check that the display runs and offers OpenGL 2"
        )


APP = Command("the camera app: live guidance, capture, risk and advice", _arguments, run, "app")
