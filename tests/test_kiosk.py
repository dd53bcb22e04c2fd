"""The kiosk: self-check, idle timer, PIN, a log that takes no names, the systemd unit."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle import Bundle
from edge_app import kiosk
from edge_app.capture.sources import Frame, SourceError
from edge_app.kiosk import Idle, Journal, Pin, WrongPin, self_check


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
    assert list(checks) == ["bundle", "speed", "camera", "disk"]
    assert checks["camera"].words == "camera 0, 64 x 48 px"
    assert all(check.ok for name, check in checks.items() if name != "speed")


def test_each_fault_is_told_in_words(tiny_bundle, tmp_path, monkeypatch):
    def no_camera():
        raise SourceError("camera 0 cannot be opened: is it plugged in?")

    def no_bundle():
        raise UserError("bundle x is damaged")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(kiosk, "SLOW_MS", 0)
    checks = _checked(tiny_bundle, tmp_path / "file" / "cases", no_camera)
    assert "plugged in" in checks["camera"].words
    assert "cannot be written" in checks["disk"].words
    assert "too slow" in checks["speed"].words
    broken = _checked(tiny_bundle, tmp_path, loader=no_bundle)
    assert broken["bundle"].words == "the model cannot be used: bundle x is damaged"
    monkeypatch.setattr(kiosk, "CAMERA_SECONDS", 0.01)
    monkeypatch.setattr(kiosk, "FREE_BYTES", 2**62)
    black = _checked(tiny_bundle, tmp_path, lambda: Camera(0))
    assert "black" in black["camera"].words
    assert "make room" in black["disk"].words
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


def test_the_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(kiosk, "LOG_BYTES", 200)
    journal = Journal(tmp_path / "kiosk.log")
    for number in range(200):
        journal.write("capture", ms=number)
    journal.close()
    files = list(tmp_path.iterdir())
    assert len(files) == kiosk.LOG_FILES
    assert all(file.stat().st_size <= 200 for file in files)


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    text = kiosk.unit(["--source", 'nvarguscamerasrc ! appsink name="50%"'])
    assert '"nvarguscamerasrc ! appsink name=\\"50%%\\""' in text
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here")
    path = tmp_path / "dermedge.service"
    path.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    about = [line for line in done.stderr.splitlines() if "dermedge.service" in line]
    assert about == []


def test_self_check_command_prints_items_and_fails_without_a_camera(tiny_bundle, tmp_path):
    command = [sys.executable, "-m", "dermedge.cli", "app", "--self-check"]
    command += ["--bundle", str(tiny_bundle), "--source", "/dev/video99"]
    command += ["--captures", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "camera   FAULT  camera /dev/video99 cannot be opened" in done.stdout
    assert "bundle   ok" in done.stdout
    assert "disk     " in done.stdout
