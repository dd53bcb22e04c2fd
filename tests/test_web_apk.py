"""The page as an APK: signed, without a network, the same bytes for the same site."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermedge import UserError, __version__
from dermedge.cli import main
from dermedge.files import cache_folder
from edge_app.web import apk, apk_tools
from edge_app.web.apk import build_apk, new_key
from edge_app.web.packages import PackageError
from edge_app.web.site import packed, write_site
from tests import web

# It needs Debian's tools for Android, and 100 MB of Maven Central.
pytestmark = pytest.mark.slow

PASSPHRASE = "correct horse battery"
CONTENT = {
    "index.html": b'<!doctype html><script src="app.js"></script>',
    "app.js": b"'use strict';",
    "worker.js": b"// " + 500 * b"worker ",
    "icon-192.png": cv2.imencode(".png", np.full((192, 192, 3), 90, np.uint8))[1].tobytes(),
    "files/core.wasm": b"\0asm" + bytes(500),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    web.node()
    folder = tmp_path_factory.mktemp("site")
    write_site(folder, CONTENT, packed(tmp_path_factory.mktemp("packed"), CONTENT, 1), b"")
    return folder


@pytest.fixture(scope="module")
def vendor() -> Path:
    """The libraries of Maven Central; skipped where they or Debian's programs cannot be had."""
    if apk_tools.missing():
        pytest.skip(f"not installed (Debian packages): {' '.join(apk_tools.missing())}")
    folder = cache_folder() / "maven"
    try:
        for wanted in (apk_tools.ANDROID, apk_tools.DEX):
            apk_tools.library(wanted, folder)
    except PackageError as error:
        pytest.skip(f"no libraries for an APK: {error}")
    return folder


@pytest.fixture(scope="module")
def key(vendor, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("key") / "clinic.p12"
    new_key(path, PASSPHRASE)
    assert path.stat().st_mode & 0o077 == 0
    return path


@pytest.fixture(scope="module")
def made(site, vendor, key, tmp_path_factory) -> tuple[Path, apk.Apk]:
    path = tmp_path_factory.mktemp("apk") / "dermedge.apk"
    return path, build_apk(site, path, key, PASSPHRASE, vendor)


def _said(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True
    ).stdout


def test_it_is_signed_as_android_asks_and_aligned(made):
    path, report = made
    said = _said("apksigner", "verify", "-v", "--print-certs", "--min-sdk-version", 26, path)
    assert said.startswith("Verifies")
    for scheme, used in (("v1", "false"), ("v2", "true"), ("v3", "true")):
        assert re.search(rf"{scheme} scheme .*: {used}", said)
    assert report.signer in said
    _said("zipalign", "-c", "-p", "4", path)
    with zipfile.ZipFile(path) as archive:
        # Android 11 and later take no APK whose table of resources is packed.
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED
        assert archive.read("classes.dex").startswith(b"dex\n")


def test_what_it_may_do_is_use_the_camera(made):
    path, _ = made
    badging = _said("aapt", "dump", "badging", path)
    assert re.findall(r"^uses-permission.*: name='(.*?)'", badging, re.MULTILINE) == [
        "android.permission.CAMERA"
    ]
    assert f"versionName='{__version__}'" in badging
    assert "sdkVersion:'26'" in badging
    assert "targetSdkVersion:'34'" in badging
    assert "application-debuggable" not in badging
    assert "uses-feature: name='android.hardware.camera'" not in badging  # a phone without, too
    tree = _said("aapt", "dump", "xmltree", path, "AndroidManifest.xml")
    for name in ("allowBackup", "fullBackupContent", "usesCleartextTraffic"):
        assert re.search(rf"android:{name}\(.*\)=\(type 0x12\)0x0$", tree, re.MULTILINE), name
    exported = re.findall(r"android:exported\(.*\)=\(type 0x12\)(0x\w+)", tree)
    assert exported == ["0xffffffff", "0x0"]  # the activity; not the photos
    for name in ("EnableSafeBrowsing", "MetricsOptOut"):
        assert f"android.webkit.WebView.{name}" in tree


def test_it_holds_the_site_and_what_a_webview_lacks(made, site):
    path, _ = made
    with zipfile.ZipFile(path) as archive:
        for name in ("app.js", "worker.js", "files/core.wasm"):
            assert archive.read(f"assets/site/{name}") == CONTENT[name]
        page = archive.read("assets/site/index.html").decode()
        assert page.index("device.js") < page.index("app.js")
        about = json.loads(archive.read("assets/site.json"))
        assert "assets/site/sw.js" not in archive.namelist()
    assert about["files"]["files/core.wasm"] == "application/wasm"
    assert about["files"]["device.js"] == "text/javascript; charset=utf-8"
    assert "unsafe-eval" in about["worker_policy"]
    assert "unsafe-eval" not in about["policy"]


def test_the_same_site_gives_the_same_bytes(made, site, vendor, tmp_path, monkeypatch, capsys):
    path, report = made
    key, again = tmp_path / "other.p12", tmp_path / "again.apk"
    monkeypatch.setattr("sys.stdin", _Typed(PASSPHRASE + "\n"))
    words = ["--site", site, "--out", again, "--key", key, "--new-key", "--vendor", vendor]
    assert main(["web", "apk", *map(str, words)]) == 0
    said = capsys.readouterr().out
    assert report.unsigned in said
    assert report.signer not in said  # another clinic's key
    assert again.read_bytes() != path.read_bytes()
    with zipfile.ZipFile(path) as first, zipfile.ZipFile(again) as second:
        assert {e.date_time for e in first.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert [e.CRC for e in first.infolist()] == [e.CRC for e in second.infolist()]


class _Typed:
    def __init__(self, line: str):
        self._line = line

    def isatty(self) -> bool:
        return False

    def readline(self) -> str:
        return self._line


def test_a_wrong_passphrase_and_keys_that_are_there_are_told(site, key, vendor, tmp_path):
    out = tmp_path / "out.apk"
    with pytest.raises(UserError, match="another passphrase") as caught:
        build_apk(site, out, key, "another one 42", vendor)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    before = key.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        new_key(key, PASSPHRASE)
    assert key.read_bytes() == before
    for weak in ("short", "grün Tisch 7 Wolke"):
        with pytest.raises(UserError, match="12 characters at least, of ASCII"):
            new_key(tmp_path / "new.p12", weak)
    with pytest.raises(UserError, match="--new-key"):
        build_apk(site, out, tmp_path / "missing.p12", PASSPHRASE, vendor)


def test_a_site_that_is_none_or_damaged_is_refused(site, key, vendor, tmp_path):
    out = tmp_path / "out.apk"
    with pytest.raises(UserError, match="is no site"):
        build_apk(tmp_path, out, key, PASSPHRASE, vendor)
    for damage in ("missing", "other"):
        copy = tmp_path / damage
        shutil.copytree(site, copy)
        first, second, *_ = sorted((copy / "files").iterdir())
        if damage == "missing":
            first.unlink()
        else:
            first.write_bytes(second.read_bytes())
        with pytest.raises(UserError, match="is damaged at"):
            build_apk(copy, out, key, PASSPHRASE, vendor)
    assert not out.exists()


def test_missing_tools_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(apk_tools.shutil, "which", lambda name: None)
    monkeypatch.setattr(apk_tools, "FRAMEWORK", tmp_path / "framework-res.apk")
    with pytest.raises(PackageError, match="aapt android-framework-res apksigner default-jdk"):
        new_key(tmp_path / "key.p12", PASSPHRASE)
    with pytest.raises(PackageError, match="install Maven"):
        apk_tools.library(apk_tools.DEX, tmp_path)
    (tmp_path / apk_tools.DEX.file).write_bytes(b"another one")
    with pytest.raises(PackageError, match="delete it"):
        apk_tools.library(apk_tools.DEX, tmp_path)
