"""The kiosk: self-check, idle timer, PIN, a log that takes no names, the systemd unit."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from commands import call

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from edge_app import kiosk
from edge_app import self_check as health
from edge_app.capture.sources import Frame, SourceError
from edge_app.commands import APP
from edge_app.kiosk import Idle, Journal, Pin, WrongPin
from edge_app.self_check import self_check
from edge_app.store import pending


class Camera:
    name, live, interval = "camera 0", True, 0.0

    def __init__(self, value):
        self.value = value

    def read(self):
        return Frame(np.full((48, 64, 3), self.value, np.uint8), 1)

    def close(self):
        pass


def _checked(tiny_bundle, folder, opener=lambda: Camera(120), loader=None):
    load = loader or (lambda: Analyzer(Bundle.open(tiny_bundle)))
    return {check.name: check for check in self_check(opener, load, folder)}


def test_a_sound_device_passes(tiny_bundle, tmp_path):
    checks = _checked(tiny_bundle, tmp_path / "cases")
    assert list(checks) == ["bundle", "speed", "camera", "disk", "clock"]
    assert checks["camera"].message == "camera 0, 64 x 48 px"
    assert all(check.ok for name, check in checks.items() if name != "speed")


def test_each_fault_is_told_in_words(tiny_bundle, tmp_path, monkeypatch):
    def no_camera():
        raise SourceError("camera 0 cannot be opened: is it plugged in?")

    def no_bundle():
        raise UserError("bundle x is damaged")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(health, "SLOW_MS", 0)
    checks = _checked(tiny_bundle, tmp_path / "file" / "cases", no_camera)
    assert "plugged in" in checks["camera"].message
    assert "cannot be written" in checks["disk"].message
    assert "too slow" in checks["speed"].message
    broken = _checked(tiny_bundle, tmp_path, loader=no_bundle)
    assert broken["bundle"].message == "the model cannot be used: bundle x is damaged"
    monkeypatch.setattr(health, "CAMERA_SECONDS", 0.01)
    monkeypatch.setattr(health, "FREE_BYTES", 2**62)
    black = _checked(tiny_bundle, tmp_path, lambda: Camera(0))
    assert "black" in black["camera"].message
    assert "make room" in black["disk"].message
    for check in (checks["camera"], checks["disk"], broken["bundle"], black["camera"]):
        assert not check.ok


def test_idle_time_begins_anew_with_each_touch():
    idle = Idle(now=10, seconds=60)
    assert idle.left(30) == 40
    idle.touch(50)
    assert idle.left(100) == 10
    assert idle.left(110) == 0


def test_pin_is_checked_and_wrong_tries_make_wait_longer_even_after_a_restart(tmp_path):
    now = [1000.0]
    path = tmp_path / "pin"
    pin = Pin(path, lambda: now[0])
    assert not pin.exists()
    pin.set("2468")
    pin.check("2468")
    assert "2468" not in path.read_text()
    for _ in range(kiosk.FREE_TRIES):
        with pytest.raises(WrongPin, match="is wrong"):
            pin.check("1111")
    again = Pin(path, lambda: now[0])
    with pytest.raises(WrongPin, match="wait 30 s"):
        again.check("2468")
    now[0] += 31
    with pytest.raises(WrongPin, match="is wrong"):
        again.check("1111")
    with pytest.raises(WrongPin, match="wait 60 s"):
        again.check("2468")
    now[0] = 0  # a clock that was set back locks nobody out for longer
    with pytest.raises(WrongPin, match="wait 60 s"):
        again.check("2468")
    now[0] = 5000
    again.check("2468")


def test_on_a_full_disk_the_operator_enters_and_wrong_tries_count(tmp_path, monkeypatch):
    pin = Pin(tmp_path / "pin", lambda: 1e9)
    pin.set("2468")

    def full(path, *_data, **_values):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(kiosk, "write_atomic", full)
    pin.check("2468")
    for tried in ["1111"] * 3 + ["2468"]:
        with pytest.raises(WrongPin) as caught:
            pin.check(tried)
    assert "wait 30 s" in str(caught.value)


def test_a_clock_that_was_set_back_is_found_before_the_store_is_unlocked(tmp_path):
    assert health.check_clock(tmp_path, lambda: stamp("2026-11-20")).ok
    assert not health.check_clock(tmp_path, lambda: stamp("1970-01-01")).ok
    assert not health.check_clock(tmp_path / "none", lambda: stamp("2099-01-01")).ok
    (tmp_path / "cases.db").touch()
    os.utime(tmp_path / "cases.db", (stamp("2026-12-24"),) * 2)
    check = health.check_clock(tmp_path, lambda: stamp("2026-11-20"))
    assert "says 2026-11-20 00:00 UTC, but the last entry was made on 2026-12-24" in check.message
    assert health.check_clock(tmp_path, lambda: stamp("2026-12-24") - 60).ok  # set by a network


def stamp(day: str) -> float:
    return datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()


@pytest.mark.parametrize("pin", ["1234", "0000", "7654", "456789", "99999999"])
def test_a_pin_that_is_tried_first_is_refused(tmp_path, pin):
    with pytest.raises(UserError, match="among the first that are tried"):
        Pin(tmp_path / "pin").set(pin)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "5", '{"wrong": 0}', "[" * 99_999,
     '{"salt": "00", "key": "00", "cost": {"n": 2, "r": 8, "p": 1}, "wrong": 0, "last": 0}',
     json.dumps({"salt": "00" * 16, "key": "00" * 32, "cost": {"n": 2**40, "r": 8, "p": 1},
                 "wrong": 0, "last": 0})],
)  # fmt: skip
def test_a_damaged_file_of_the_pin_opens_nothing(tmp_path, text):
    (tmp_path / "pin").write_text(text)
    with pytest.raises(UserError, match="no PIN that can be read"):
        Pin(tmp_path / "pin").check("2468")


def test_the_pin_is_set_on_the_console_and_its_change_is_noted(tmp_path):
    typed = iter(["2580", "2581", "2580", "2580"])
    with pytest.raises(UserError, match="not the same"):
        kiosk.set_pin(tmp_path, lambda _words: next(typed))
    assert not health.check_pin(Pin(tmp_path / kiosk.PIN_FILE)).ok
    kiosk.set_pin(tmp_path, lambda _words: next(typed))
    assert health.check_pin(Pin(tmp_path / kiosk.PIN_FILE)).ok
    Pin(tmp_path / kiosk.PIN_FILE).check("2580")
    events = [event for _when, event, _count in pending.read(tmp_path)]
    assert events == ["begin change PIN", "done change PIN"]
    left = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "2580" not in left


def test_the_command_takes_a_pin_from_the_terminal_alone(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "dermedge.cli", "app", "--set-pin", "--home", str(home)]

    def run(typed: str, *more: str):
        return subprocess.run(
            [*command, *more], input=typed, capture_output=True, text=True, timeout=120
        )

    done = run("", "2580")
    assert done.returncode == 2
    assert not home.exists()
    done = subprocess.run(
        command, input="2580\n2580\n", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    Pin(home / kiosk.PIN_FILE).check("2580")
    done = subprocess.run(
        command, input="1234\n1234\n", capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "among the first" in done.stderr


def test_a_kiosk_without_a_pin_lets_nobody_in_and_says_what_to_do(tmp_path):
    pin = Pin(tmp_path / kiosk.PIN_FILE)
    with pytest.raises(UserError, match="no PIN that can be read"):
        pin.check("2468")
    assert "dermedge app --set-pin" in health.check_pin(pin).message


@pytest.mark.parametrize("pin", ["123", "abcd", "", "１２３４"])
def test_a_pin_is_at_least_four_digits(tmp_path, pin):
    with pytest.raises(UserError, match="four digits"):
        Pin(tmp_path / "pin").set(pin)
    assert not (tmp_path / "pin").exists()


def test_names_and_file_names_never_enter_the_log(tmp_path):
    journal = Journal(tmp_path / "log" / "kiosk.log")
    journal.write("capture", ms=412)
    journal.write("source fault", code="lost")
    for event, values in (
        ("capture", {"name": "Ada Lovelace"}),
        ("capture", {"path": "/home/ada/mole.png"}),
        ("Ada Lovelace", {}),
    ):
        with pytest.raises(ValueError, match="known events"):
            journal.write(event, **values)
    journal.close()
    lines = (tmp_path / "log" / "kiosk.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["capture ms=412", "source fault code=lost"]


def test_a_kiosk_whose_disk_cannot_be_written_starts_without_a_log(tmp_path, capsys):
    """It ended, and its screen stayed dark: the fault that the self-check found was not shown."""
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "kiosk.log")
    journal.write("start")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dermedge: there is no log: ")
    journal.close()


def test_the_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(kiosk, "LOG_BYTES", 200)
    journal = Journal(tmp_path / "kiosk.log")
    for number in range(200):
        journal.write("capture", ms=number)
    journal.close()
    files = list(tmp_path.iterdir())
    assert len(files) == kiosk.LOG_FILES
    assert all(file.stat().st_size <= 200 for file in files)


def _unit(*words: str) -> str:
    """What `dermedge app --systemd WORDS` prints."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        assert call(APP, "--systemd", *words) == 0
    return stream.getvalue()


def _setting(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def _started(text: str) -> list[str]:
    """The words that systemd gives the program: unquoted, specifiers and variables as they are."""
    (line,) = _setting(text, "ExecStart")
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    assert " ".join(f'"{word}"' for word in words) == line
    assert not re.search(r"(?<!%)%(%%)*(?!%)", line)
    assert not re.search(r"(?<!\$)\$(\$\$)*(?!\$)", line)
    plain = [re.sub(r"\\(.)", r"\1", word) for word in words]
    return [word.replace("%%", "%").replace("$$", "$") for word in plain]


def _systemd_takes(text: str, tmp_path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    path = tmp_path / "dermedge.service"
    path.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    about = [line for line in done.stderr.splitlines() if "dermedge.service" in line]
    assert about == []


# A value for each option that takes one, by what its help calls it.
VALUES = {"FILE": "part/key file.pem", "DIR": "part/cases", "SPEC": "1", "WxH": "640x480"}


def _every_option() -> list[tuple[str, str | None]]:
    """Each option of the app but those that do something else than run it, with a value."""
    parser = argparse.ArgumentParser()
    APP.arguments(parser)
    other = {"help", "systemd", "kiosk", "self_check", "set_pin", "screenshot", "soak", "measure"}
    other |= {"language", "theme", "text"}  # for --screenshot alone
    found = []
    for action in parser._actions:
        if action.dest not in other:
            value = None
            if action.nargs != 0:
                value = VALUES.get(action.metavar) or str(list(action.choices or "7")[-1])
            found.append((action.option_strings[-1], value))
    return found


def test_the_unit_keeps_every_option_of_the_parser(monkeypatch):
    """Whatever option is added to the app later is kept as well."""
    monkeypatch.chdir("/var")
    options = _every_option()
    assert {"--bundle", "--trusted-key", "--source", "--home", "--rotate"} <= dict(options).keys()
    for name, value in options:
        words = _started(_unit(name, *([value] if value else [])))
        at = words.index(name)
        if value:
            wanted = f"/var/{value}" if "/" in value else value
            assert words[at + 1] == wanted, name
    together = [w for name, value in options if name != "--size" for w in (name, value) if w]
    words = _started(_unit(*together))
    assert all(name in words for name, _ in options if name != "--size")
    assert words[:5] == [sys.executable, "-m", "dermedge.cli", "app", "--kiosk"]


@pytest.mark.parametrize("option", ["--screenshot", "--soak", "--measure", "--language"])
def test_what_is_no_use_to_a_service_is_refused(option):
    value = {"--screenshot": "shots", "--language": "de"}.get(option, "3")
    with pytest.raises(UserError, match=f"{option} is of no use to a service"):
        _unit(option, value)


def test_a_service_may_be_told_not_to_tune():
    assert "--tune" not in _started(_unit())
    words = _started(_unit("--tune", "never"))
    assert words[words.index("--tune") + 1] == "never"


def test_names_of_shipped_bundles_cameras_and_pipelines_are_no_paths(monkeypatch):
    monkeypatch.chdir("/usr")
    pipeline = "v4l2src device=/dev/video0 ! appsink"
    words = _started(_unit("--bundle", "smartphone", "--source", pipeline))
    assert words[words.index("--bundle") + 1] == "smartphone"
    assert words[words.index("--source") + 1] == pipeline
    words = _started(_unit("--source", "share"))  # a folder that is there
    assert words[words.index("--source") + 1] == "/usr/share"


@pytest.mark.parametrize(
    "value",
    [
        'nvarguscamerasrc ! appsink name="50%"',
        "%h/%i ! $HOME ${HOME} $$ ! appsink",
        "a \\ b ! 'c' ; d \\n ! appsink",
        "! @- +: ! -appsink",
        "Hautärztin ! 皮膚 ! appsink",
        "trailing \\",
    ],
)
def test_the_unit_hands_on_every_character(value, tmp_path):
    text = _unit("--source", value)
    words = _started(text)
    assert words[words.index("--source") + 1] == value
    _systemd_takes(text, tmp_path)


@pytest.mark.parametrize("value", ["a\nExecStartPre=/bin/sh", "a\0b", "a\x1b[0m", "a\rb"])
def test_what_no_line_can_hold_is_refused(value):
    with pytest.raises(UserError, match="cannot hold") as caught:
        _unit("--source", value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "private"), [("/dev/video0", "yes"), ("nvarguscamerasrc ! appsink", "no")]
)
def test_a_service_sees_the_socket_of_a_jetsons_camera(source, private):
    """/tmp/argus_socket: no CSI camera could be opened without it."""
    assert _setting(_unit("--source", source), "PrivateTmp") == [private]


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp"])
def test_what_the_service_does_not_see_is_refused(folder):
    with pytest.raises(UserError, match=f"outside of {folder}"):
        _unit("--bundle", f"{folder}/mine.dermbundle")


def test_the_service_has_a_home_and_a_cache_that_it_may_write(tmp_path):
    text = _unit(
        "--bundle",
        "/opt/mine.dermbundle",
        "--trusted-key",
        "/opt/key.pem",
        "--min-release",
        "2",
        "--home",
        "/srv/cases of people",
        "--captures",
        "/srv/100%",
    )
    environment = dict(item.split("=", 1) for item in _setting(text, "Environment"))
    assert environment["HOME"] == "%S/dermedge"
    assert environment["XDG_DATA_HOME"] == "%S"
    assert environment["XDG_CACHE_HOME"] == "%C/dermedge"
    assert _setting(text, "StateDirectory") == _setting(text, "CacheDirectory") == ["dermedge"]
    assert _setting(text, "ReadWritePaths") == ['"/srv/cases of people"', '"/srv/100%%"']
    # Message in the unit: whose choice the service finds, and with which bundle.
    tune = next(line for line in text.splitlines() if " tune " in line)
    assert "sudo -u dermedge env XDG_CACHE_HOME=/var/cache/dermedge " in tune
    assert " XDG_STATE_HOME=/var/lib/dermedge/state " in tune
    wanted = "tune --bundle /opt/mine.dermbundle --trusted-key /opt/key.pem --min-release 2"
    assert tune.endswith(wanted)
    _systemd_takes(text, tmp_path)


def test_self_check_command_prints_items_and_fails_without_a_camera(tiny_bundle, tmp_path):
    command = [sys.executable, "-m", "dermedge.cli", "app", "--self-check"]
    command += ["--bundle", str(tiny_bundle), "--source", "/dev/video99"]
    command += ["--captures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "camera   FAULT  camera /dev/video99 cannot be opened" in done.stdout
    assert "bundle   ok" in done.stdout
    assert "disk     " in done.stdout
