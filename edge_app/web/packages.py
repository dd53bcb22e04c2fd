"""The packages of others that the page is made of: which, which version, which bytes.

npm brings all but numpy, from wherever its own configuration says; numpy's wheel for Pyodide is
on no package registry and comes from Pyodide's official release. Every file is checked against a
checksum before anything of it is read: those of npm stand here, that of numpy in Pyodide's own
`pyodide-lock.json`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dermedge import UserError
from dermedge.files import write_atomic


class PackageError(UserError):
    """A package cannot be had, or is not the one that was asked for."""

    exit_status = 1


@dataclass(frozen=True)
class Package:
    """A package of npm, pinned.

    integrity : as npm writes it, SHA-512 in base64. licence : of what is taken of it.
    """

    name: str
    version: str
    integrity: str
    licence: str

    @property
    def file(self) -> str:
        """Name of its archive, as `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


PYODIDE = Package(
    "pyodide",
    "0.27.7",
    "sha512-RUSVJlhQdfWfgO9hVHCiXoG+nVZQRS5D9FzgpLJ/VcgGBLSAKoPL8kTiOikxbHQm1kRISeWUBdulEgO26qpSRA==",
    "MPL-2.0",
)
OPENCV = Package(
    "@techstark/opencv-js",
    "5.0.0-release.1",
    "sha512-PIm+eB0MFtieXoNC2GRao0dv/02sehG+Nv2nSW5D6pQm6J/4WqvDHm0RyoqOmGYQm67jdGiaOdIeTShCY3PIUg==",
    "Apache-2.0",
)
RUNTIME = Package(
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    "MIT",
)
BROTLI = Package(  # unpacks what browsers unpack only for hosts that are set up for it
    "brotli",
    "1.3.3",
    "sha512-oTKjJdShmDuGW94SyyaoQvAjf30dZaHnjJ8uAF+u2/vGJkJbJPJAT1gDiOJP5v1Zb6f9KEyW/1HpuaWIXtGHPg==",
    "MIT",
)
SQLITE = Package(  # writes the file that the app imports
    "sql.js",
    "1.14.0",
    "sha512-NXYh+kFqLiYRCNAaHD0PcbjFgXyjuolEKLMk5vRt2DgPENtF1kkNzzMlg42dUk5wIsH8MhUzsRhaUxIisoSlZQ==",
    "MIT",
)
PACKAGES = (PYODIDE, OPENCV, RUNTIME, BROTLI, SQLITE)
WAIT_SECONDS = 600


def fetch(folder: Path) -> dict[Package, Path]:
    """Each package's archive in `folder`, by `npm pack` where it is not there yet.

    Raises PackageError where there is no npm, it fails, or an archive is another one.
    """
    found = {}
    for package in PACKAGES:
        path = folder / package.file
        if not path.is_file():
            _pack(package, path)
        if integrity(path.read_bytes()) != package.integrity:
            raise PackageError(
                "{path} is not {name} {version}: delete it",
                code="web.package",
                path=path,
                name=package.name,
                version=package.version,
            )
        found[package] = path
    return found


def integrity(content: bytes) -> str:
    """The checksum of an archive, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def _pack(package: Package, path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError(
            "{name} {version} comes from npm, which is not installed: install npm, or give "
            "--vendor a folder with {file}",
            code="web.npm",
            name=package.name,
            version=package.version,
            file=path.name,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder]
        command.append(f"{package.name}@{package.version}")
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=WAIT_SECONDS
            )
            reason = " ".join(done.stderr.split())[-200:] or f"it ended with {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = "it did not end"
        made = Path(folder, package.file)
        if not made.is_file():
            raise PackageError(
                "npm did not bring {name} {version}: {reason}",
                code="web.npm",
                name=package.name,
                version=package.version,
                reason=reason,
            )
        write_atomic(path, made.read_bytes())


def members(archive: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    """Content by our name of the members of an npm archive that `names` maps it to.

    Raises PackageError where one is missing.
    """
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes()), mode="r:gz") as tar:
        content = {}
        for ours, theirs in names.items():
            try:
                file = tar.extractfile(f"package/{theirs}")
            except KeyError:
                file = None
            if file is None:
                raise PackageError(
                    "{path} holds no {name}", code="web.package", path=archive, name=theirs
                )
            content[ours] = file.read()
    return content


def numpy_wheel(lock: bytes, wheel: Path | None) -> bytes:
    """numpy's wheel for this Pyodide.

    Parameters
    ----------
    lock : of the Pyodide package; names the wheel and its SHA-256.
    wheel : the file.

    Raises PackageError where it is missing, or another one.
    """
    entry = json.loads(lock)["packages"]["numpy"]
    if wheel is None or not wheel.is_file():
        raise PackageError(
            "numpy for Pyodide is on no package registry: take {file} from Pyodide's release "
            "{version}, and give it as --numpy-wheel",
            code="web.numpy",
            file=entry["file_name"],
            version=PYODIDE.version,
        )
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise PackageError(
            "{path} is not numpy {version} of Pyodide {pyodide}: its SHA-256 is not the one in "
            "pyodide-lock.json",
            code="web.numpy",
            path=wheel,
            version=entry["version"],
            pyodide=PYODIDE.version,
        )
    return content
