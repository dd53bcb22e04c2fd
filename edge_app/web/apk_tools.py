"""What an APK is made with: programs of Debian, and two libraries of Maven Central."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_app.web.packages import PackageError

# Program to Debian package.
PROGRAMS = {
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "keytool": "default-jdk-headless",
}
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
WAIT_SECONDS = 600


@dataclass(frozen=True)
class Library:
    """A jar of Maven Central. name : group:artifact:version. sha256 : of the jar."""

    name: str
    sha256: str

    @property
    def file(self) -> str:
        _group, artifact, version = self.name.split(":")
        return f"{artifact}-{version}.jar"


# Of the oldest Android that is asked for: what came later does not compile.
ANDROID = Library(
    "org.robolectric:android-all:8.0.0_r4-robolectric-r1",
    "3707dc100381e3bbcc57b85255fd313ae20875fc65cf3130c47e86f044ad77f0",
)
DEX = Library(
    "com.jakewharton.android.repackaged:dalvik-dx:14.0.0_r21",
    "9b13bc80bf86f193f8de9c959f52a8ff83fc85a1cc552f5126f1140da9b85a36",
)


def missing() -> list[str]:
    """Debian packages that are to be installed first."""
    packages = {package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if not FRAMEWORK.is_file():
        packages.add("android-framework-res")
    return sorted(packages)


def library(wanted: Library, folder: Path) -> Path:
    """The jar in `folder`, by Maven where it is not there yet.

    Raises PackageError where there is no Maven, it fails, or the jar is another one.
    """
    path = folder / wanted.file
    if not path.is_file():
        if shutil.which("mvn") is None:
            raise PackageError(
                "{name} comes from Maven Central: install Maven (maven), or put {file} into "
                "{folder}",
                code="web.maven",
                name=wanted.name,
                file=path.name,
                folder=folder,
            )
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "dependency:copy", f"-DoutputDirectory={folder.resolve()}"]
        run([*command, f"-Dartifact={wanted.name}"])
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted.sha256:
        raise PackageError(
            "{path} is not {name}: delete it", code="web.package", path=path, name=wanted.name
        )
    return path


def run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """What a program printed. Raises PackageError where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=WAIT_SECONDS, env=environment
        )
        failed, said = done.returncode != 0, done.stderr + done.stdout
    except (subprocess.TimeoutExpired, OSError) as error:
        failed, said = True, str(error)
    if failed:
        reason = " ".join(said.split())[-300:] or "it said nothing"
        raise PackageError(
            "{name} failed: {reason}", code="web.tool", name=command[0], reason=reason
        )
    return done.stdout
