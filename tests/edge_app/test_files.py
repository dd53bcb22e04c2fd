"""The file browser behind the screens: what it lists, and what it says where it cannot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge import UserError, cli
from dermedge.image.read import write_png
from edge_app import browser
from edge_app.browser import above, check_writable, listing, nearest, places
from edge_app.folders import data_folder

PICTURES = frozenset({".png", ".jpg"})


def names(items) -> list[str]:
    return [item.path.name for item in items]


def test_folders_come_first_and_only_what_fits(tmp_path):
    for name in ("b.png", "A.JPG", "notes.txt", ".hidden.png", "صورة الذراع.png", "my arm 10.png"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "my arm 9.png").write_bytes(b"")
    for name in ("Zoo", "2026 left arm", ".cache", "مجلد"):
        (tmp_path / name).mkdir()
    found = listing(tmp_path, PICTURES)
    folders = ["2026 left arm", "Zoo", "مجلد"]
    files = ["A.JPG", "b.png", "my arm 9.png", "my arm 10.png", "صورة الذراع.png"]
    assert names(found) == folders + files
    assert [item.folder for item in found] == [True] * 3 + [False] * 5
    assert found[3].bytes == 5
    assert names(listing(tmp_path, frozenset())) == folders


def test_a_file_is_told_by_its_size_and_day(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"0" * 1_250_000)
    os.utime(path, (1_767_312_000, 1_767_312_000))
    (item,) = listing(tmp_path, PICTURES)
    assert browser.details(item) == "1.2 MB · Jan 2, 2026"


def test_what_is_broken_inside_does_not_hide_the_rest(tmp_path):
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    (tmp_path / "good.png").write_bytes(b"1")
    assert names(listing(tmp_path, PICTURES)) == ["good.png"]


def test_a_folder_that_is_gone_or_no_folder_is_told_by_its_name(tmp_path):
    with pytest.raises(UserError, match=r"the folder صور 2026 is not there any more"):
        listing(tmp_path / "صور 2026", PICTURES)
    (tmp_path / "file.png").write_bytes(b"1")
    with pytest.raises(UserError, match="not there any more"):
        listing(tmp_path / "file.png", PICTURES)


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    def refuse(_folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(browser.os, "scandir", refuse)
    with pytest.raises(UserError, match="may not look into the folder closed"):
        listing(tmp_path / "closed", PICTURES)
    assert [place.kind for place in places(tmp_path, (tmp_path,))] == ["home", "device"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(30, "nothing can be written into"), (13, "choose another"), (28, "no room is left")],
)
def test_where_nothing_can_be_written_is_told_before(tmp_path, monkeypatch, number, words):
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuse(*_args, **_values):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(browser.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=words):
        check_writable(tmp_path)


def test_a_vanished_folder_is_not_writable(tmp_path):
    with pytest.raises(UserError, match="not there any more"):
        check_writable(tmp_path / "stick")


def test_sticks_come_before_the_home_folder(tmp_path):
    media, home = tmp_path / "media", tmp_path / "home"
    for folder in (
        home,
        media / "STICK 2",
        media / "STICK 10",
        media / browser._user() / "SD card",
    ):
        folder.mkdir(parents=True)
    found = places(home, (media, tmp_path / "none"))
    assert names(found) == ["SD card", "STICK 2", "STICK 10", "home", ""]
    assert [place.kind for place in found] == [*["stick"] * 3, "home", "device"]
    home.rmdir()
    assert "home" not in [place.kind for place in places(home, ())]


def test_up_ends_at_the_top_and_a_lost_folder_leads_to_what_is_left(tmp_path):
    assert above(tmp_path / "a") == tmp_path
    assert above(Path("/")) is None
    assert nearest(tmp_path / "stick" / "pictures") == tmp_path
    assert nearest(None) is None


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)))
def test_any_names_have_an_order(found):
    paths = [Path(name.replace("/", "_").replace("\0", "_")) for name in found]
    ordered = sorted(paths, key=browser._natural)
    assert sorted(ordered, key=browser._natural) == ordered


def test_a_thumbnail_of_what_is_no_picture_is_none(tmp_path):
    write_png(tmp_path / "a.png", np.full((600, 900, 3), 99, np.uint8))
    assert browser.thumbnail(tmp_path / "a.png", 160).shape == (107, 160, 3)
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert browser.thumbnail(tmp_path / "b.png", 160) is None
    assert browser.thumbnail(tmp_path / "gone.png", 160) is None


def test_a_user_without_a_home_is_told_to_name_a_folder(tmp_path, monkeypatch, capsys):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # XDG ignores what is not absolute
    commands = (["app"], ["send"], ["label"], ["web", "build"], ["web", "apk"])
    for command in commands:
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--help"])
        assert end.value.code == 0
    assert cli.main(["send", "list"]) == 2
    assert capsys.readouterr().err.endswith("say with --home where the cases are kept\n")
    assert [place.kind for place in places(None, (tmp_path,))] == ["device"]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "dermedge"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "x%y"))
    for command in commands[:3]:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        assert "x%y/dermedge" in "".join(capsys.readouterr().out.split())
