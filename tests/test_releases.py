"""A device that trusts a key takes no earlier release of a bundle again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from commands import call

from dermedge import cli
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import BundleError, Manifest
from dermedge.files import state_folder

form = pytest.importorskip("cryptography.hazmat.primitives.serialization")


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def keys(tmp_path):
    """Two key pairs: (private, file of the public key)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = []
    for name in ("mine", "theirs"):
        key = Ed25519PrivateKey.generate()
        path = tmp_path / f"{name}.pem"
        path.write_bytes(
            key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        )
        plain = form.NoEncryption()
        secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain)
        made.append((secret, path))
    return made


@pytest.fixture
def released(tiny_bundle, tmp_path):
    def make(release: int | None, key: bytes | None, name: str = "tiny"):
        bundle = Bundle.open(tiny_bundle)
        parts = {part: bundle.part(part) for part in bundle.manifest.parts}
        manifest = replace(bundle.manifest, release=release, name=name)
        return write_bundle(tmp_path / f"{name}-{release}.dermbundle", manifest, parts, key)

    return make


def test_a_bundle_to_compare_with_is_held_to_the_key_too(
    released, keys, home, tiny_bundle, tmp_path
):
    pytest.importorskip("jinja2")
    from benchmarks.commands.bench import BENCH

    (secret, key), _ = keys
    words = ("--bundle", released(1, secret), "--trusted-key", key, "--out", tmp_path / "out")
    with pytest.raises(BundleError, match="not signed"):
        call(BENCH, *words, "--vs", tiny_bundle)


def verify(path, *options) -> int:
    return cli.main(["verify", "--bundle", str(path), *map(str, options)])


def test_an_earlier_release_is_refused_in_one_line_that_says_how_to_allow_it(
    released, keys, home, capsys
):
    (secret, key), _ = keys
    trusted = ("--trusted-key", key)
    assert verify(released(3, secret), *trusted) == 0
    assert "release: 3" in capsys.readouterr().out
    assert verify(released(2, secret), *trusted) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "it is release 2, and release 3 of tiny by the same key was opened here" in told
    assert "--min-release 2" in told
    assert verify(released(None, secret), *trusted) == 1
    assert "it has no release number" in capsys.readouterr().err
    assert verify(released(3, secret), *trusted) == 0
    assert verify(released(4, secret), *trusted) == 0
    assert verify(released(3, secret), *trusted) == 1
    # On purpose: as often as it is asked for, and no longer.
    assert verify(released(2, secret), *trusted, "--min-release", 2) == 0
    assert verify(released(2, secret), *trusted) == 1


def test_every_name_and_key_has_a_floor_of_its_own(released, keys, home):
    (mine, my_key), (theirs, their_key) = keys
    assert verify(released(5, mine), "--trusted-key", my_key) == 0
    assert verify(released(1, theirs), "--trusted-key", their_key) == 0
    assert verify(released(1, mine, "other"), "--trusted-key", my_key) == 0
    assert verify(released(4, mine), "--trusted-key", my_key) == 1


def test_nothing_is_remembered_of_those_that_nobody_trusts(released, keys, home):
    (secret, _), _ = keys
    assert verify(released(9, secret)) == 0
    assert verify(released(8, None)) == 0
    assert not home.exists()


def test_a_bundle_without_releases_leaves_no_trace(released, keys, home):
    (secret, key), _ = keys
    assert verify(released(None, secret), "--trusted-key", key) == 0
    assert not home.exists()


def test_the_least_release_can_be_given(released, keys, home, capsys):
    assert verify(released(3, None), "--min-release", 3) == 0
    assert verify(released(2, None), "--min-release", 3) == 1
    assert "is release 2, but --min-release asks for 3 or later" in capsys.readouterr().err
    assert verify(released(None, None), "--min-release", 1) == 1
    assert verify(released(None, None), "--min-release", 0) == 0
    assert verify(released(3, None), "--min-release", -1) == 2


def test_a_damaged_memory_is_told(released, keys, home, capsys):
    (secret, key), _ = keys
    assert verify(released(3, secret), "--trusted-key", key) == 0
    (kept,) = (state_folder() / "releases").iterdir()
    assert kept.read_text() == "3\n"
    kept.write_text("many")
    capsys.readouterr()
    assert verify(released(3, secret), "--trusted-key", key) == 2
    assert f"{kept} is damaged" in capsys.readouterr().err


def test_where_nothing_can_be_remembered_it_runs_and_says_so(released, keys, home, capsys):
    (secret, key), _ = keys
    home.write_text("a file, where a folder should be")
    assert verify(released(3, secret), "--trusted-key", key) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the release is not remembered" in told


def test_a_folder_that_is_not_absolute_is_not_another_one_in_each_working_folder(
    released, keys, home, tmp_path, monkeypatch
):
    (secret, key), _ = keys
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for folder, release, status in (("one", 3, 0), ("two", 2, 1)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert verify(released(release, secret), "--trusted-key", key) == status
        assert list((tmp_path / folder).iterdir()) == []


def test_a_user_without_a_home_is_told_what_to_set(released, keys, home, monkeypatch, capsys):
    (secret, key), _ = keys

    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "DERMEDGE_ENGINES"):
        monkeypatch.delenv(variable, raising=False)
    assert verify(released(3, secret), "--trusted-key", key) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no home folder: set XDG_STATE_HOME; the release is not remembered" in told
    assert cli.main(["engine", "list"]) == 2
    assert capsys.readouterr().err.endswith("no folder for engines: set DERMEDGE_ENGINES\n")
    assert cli.main(["tune", "--forget", "--bundle", str(released(3, None))]) == 2
    assert "set XDG_CACHE_HOME" in capsys.readouterr().err


def test_a_bundle_without_a_release_reads_in_older_versions(tiny_bundle):
    manifest = Bundle.open(tiny_bundle).manifest
    assert json.loads(manifest.to_json())["format"] == 2
    assert "release" not in json.loads(manifest.to_json())
    counted = replace(manifest, release=7)
    assert json.loads(counted.to_json())["format"] == 3
    assert Manifest.from_json(counted.to_json()) == counted


def test_the_analysis_says_which_release_it_is_of(released, keys, home, tmp_path, capsys):
    from dermedge.data.synthetic import draw
    from dermedge.image.read import write_png

    (secret, key), _ = keys
    write_png(tmp_path / "a.png", draw(1, label="nv").image)
    words = ["analyze", str(tmp_path / "a.png"), "--json", "--bundle", str(released(3, secret))]
    assert cli.main([*words, "--trusted-key", str(key)]) == 0
    found = json.loads(capsys.readouterr().out)["versions"]
    assert (found["release"], len(found["signed_by"])) == (3, 16)
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)["versions"]
    assert found["signed_by"] is None
    assert "unknown key" in found["signature"]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_only_its_owner_reads_what_is_remembered(released, keys, home):
    (secret, key), _ = keys
    assert verify(released(3, secret), "--trusted-key", key) == 0
    assert (state_folder() / "releases").stat().st_mode & 0o077 == 0
