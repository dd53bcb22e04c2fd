"""Puts a built site into an APK, for phones of a clinic that has no web host.

One Java activity shows the page in Android's own WebView, out of the APK; the app has no permission
for a network. All but the signature is the same bytes for the same site.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import dermedge
from dermedge import UserError
from dermedge.files import check_writable, write_atomic
from edge_app.web.apk_tools import ANDROID, DEX, FRAMEWORK, library, missing, run
from edge_app.web.packages import PackageError
from edge_app.web.site import filled, node

SOURCES = Path(__file__).with_name("apk")
MIN_SDK = 26
# Already packed, or mapped by Android as they are.
STORED = {".png", ".arsc"}
LEAST_PASSPHRASE = 12


@dataclass(frozen=True)
class Apk:
    """What was made. unsigned : SHA-256 before the signature. signer : of the key's certificate."""

    unsigned: str
    signer: str
    bytes: int


@dataclass(frozen=True)
class Site:
    """What a browser would be given. files : path to content and type."""

    files: dict[str, tuple[bytes, str]]
    policy: str
    worker_policy: str


def new_key(path: Path, passphrase: str) -> None:
    """Make the clinic's key: every later version must be signed by it, or no phone takes it.

    Raises UserError where `path` is there already, or the passphrase is too short.
    """
    if path.exists():
        raise UserError(
            "{path} is there already: leave out --new-key to sign with it, or name another file",
            code="web.key",
            path=path,
        )
    # Java's tools read other letters by the language of the machine, each its own way.
    if len(passphrase) < LEAST_PASSPHRASE or not (
        passphrase.isascii() and passphrase.isprintable()
    ):
        raise UserError(
            "The passphrase of the key must have {least} characters at least, of ASCII alone",
            code="web.key-passphrase",
            least=LEAST_PASSPHRASE,
        )
    _tools()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "key.p12")
        command = ["keytool", "-genkeypair", "-keystore", str(made), "-storetype", "PKCS12"]
        command += ["-alias", "dermedge", "-keyalg", "RSA", "-keysize", "3072"]
        command += ["-validity", "10950", "-dname", "CN=dermedge", "-storepass:env", "KEY"]
        run(command, _with(passphrase))
        write_atomic(path, made.read_bytes(), private=True)


def check_paths(site: Path, out: Path) -> None:
    """Raise, before a passphrase is typed and a key is made, what `build_apk` would of these."""
    _listing(site)
    check_writable(out)


def build_apk(site: Path, out: Path, key: Path, passphrase: str, vendor: Path) -> Apk:
    """Write the signed APK.

    Parameters
    ----------
    site : folder that `build` made.
    key : PKCS#12 or JKS with one key, the clinic's own.
    vendor : folder of the libraries of Maven Central; what is missing there Maven brings.

    Raises
    ------
    PackageError : a program or library is missing, another one, or fails.
    UserError : there is no site or no key, or the passphrase is not the key's.
    """
    if not key.is_file():
        raise UserError(
            "{path} is missing: give the clinic's key, or make one by --new-key",
            code="web.key",
            path=key,
        )
    _tools()
    try:
        run(["keytool", "-list", "-keystore", str(key), "-storepass:env", "KEY"], _with(passphrase))
    except PackageError as error:
        raise UserError(
            "{path} cannot be opened as a key: another passphrase, or no key ({reason})",
            code="web.key",
            path=key,
            reason=error.values["reason"],
        ) from None
    given = read_site(site)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = {
            **_resources(folder, given),
            "classes.dex": _classes(folder, vendor),
            **assets(given),
        }
        _write(folder / "unaligned.apk", members)
        unsigned, signed = folder / "unsigned.apk", folder / "signed.apk"
        run(["zipalign", "-p", "4", str(folder / "unaligned.apk"), str(unsigned)])
        command = ["apksigner", "sign", "--ks", str(key), "--ks-pass", "env:KEY"]
        command += ["--min-sdk-version", str(MIN_SDK), "--v1-signing-enabled", "false"]
        command += ["--v2-signing-enabled", "true", "--v3-signing-enabled", "true"]
        command += ["--v4-signing-enabled", "false", "--out", str(signed), str(unsigned)]
        run(command, _with(passphrase))
        said = run(["apksigner", "verify", "--print-certs", str(signed)])
        signer = re.search(r"SHA-256 digest: ([0-9a-f]{64})", said)
        if signer is None:
            raise PackageError("apksigner names no signer", code="web.tool")
        content = signed.read_bytes()
        write_atomic(out, content)
        checksum = hashlib.sha256(unsigned.read_bytes()).hexdigest()
        return Apk(checksum, signer[1], len(content))


def _with(passphrase: str) -> dict[str, str]:
    return {**os.environ, "KEY": passphrase}


def _tools() -> None:
    absent = missing()
    if absent:
        raise PackageError(
            "An APK is made with Debian's packages {packages}: install them",
            code="web.debian",
            packages=" ".join(absent),
        )


def _listing(site: Path) -> tuple[dict[str, list], str, str]:
    """What the service worker of the site lists, and the policies of worker and page."""
    script = site / "sw.js"
    text = script.read_text(encoding="utf-8") if script.is_file() else ""
    listing = re.search(r"^const FILES = (\{.*\});", text, re.MULTILINE)
    policies = re.search(r'^const POLICY = "(.*)", PAGE_POLICY = "(.*)";$', text, re.MULTILINE)
    if listing is None or policies is None:
        raise UserError(
            "{path} is no site: make one by `dermedge web build`", code="web.site", path=site
        )
    return json.loads(listing[1]), policies[1], policies[2]


def read_site(site: Path) -> Site:
    """What the service worker of the site lists, each unpacked and checked."""
    listed, worker_policy, policy = _listing(site)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        packed = {path: folder / f"{entry[0]}.br" for path, entry in listed.items()}
        for path, target in packed.items():
            source = site / "files" / f"{listed[path][0][:32]}.br"
            if not source.is_file():
                raise _damaged(site, path)
            target.write_bytes(source.read_bytes())
        node("unpack.mjs", *sorted({str(path) for path in packed.values()}))
        files = {}
        for path, (checksum, kind, *_sizes) in sorted(listed.items()):
            content = Path(f"{packed[path]}.raw").read_bytes()
            if hashlib.sha256(content).hexdigest() != checksum:
                raise _damaged(site, path)
            files[path] = content, kind
    return Site(files, policy, worker_policy)


def _damaged(site: Path, path: str) -> UserError:
    return UserError(
        "{path} is damaged at {name}: make it again by `dermedge web build`",
        code="web.site",
        path=site,
        name=path,
    )


def assets(site: Site) -> dict[str, bytes]:
    """Members of the APK by name: the site's files, and what `Site.java` has to say of them."""
    files = {path: content for path, (content, _kind) in site.files.items()}
    kinds = {path: kind for path, (_content, kind) in site.files.items()}
    page, script = files["index.html"], b'<script src="app.js"></script>'
    if page.count(script) != 1:
        raise UserError("The site's index.html is not built as expected", code="web.site")
    files["index.html"] = page.replace(script, b'<script src="device.js"></script>\n' + script)
    files["device.js"] = (SOURCES / "device.js").read_bytes()
    kinds["device.js"] = kinds["app.js"]
    about = {"files": kinds, "policy": site.policy, "worker_policy": site.worker_policy}
    named = {f"assets/site/{path}": content for path, content in files.items()}
    return {**named, "assets/site.json": json.dumps(about, sort_keys=True).encode()}


def _resources(folder: Path, site: Site) -> dict[str, bytes]:
    """Manifest and icon, as Android reads them."""
    icon = folder / "res" / "drawable" / "icon.png"
    icon.parent.mkdir(parents=True)
    icon.write_bytes(site.files["icon-192.png"][0])
    major, minor, patch = (int(part) for part in dermedge.__version__.split("."))
    values = {
        "VERSION": dermedge.__version__,
        "CODE": str(major * 1_000_000 + minor * 1_000 + patch),
    }
    manifest = folder / "AndroidManifest.xml"
    text = (SOURCES / "AndroidManifest.xml").read_text(encoding="utf-8")
    manifest.write_text(filled(text, values), encoding="utf-8")
    made = folder / "resources.apk"
    command = ["aapt", "package", "-f", "-M", str(manifest), "-S", str(folder / "res")]
    run([*command, "-I", str(FRAMEWORK), "-F", str(made)])
    with zipfile.ZipFile(made) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _classes(folder: Path, vendor: Path) -> bytes:
    compiled, made = folder / "classes", folder / "classes.dex"
    command = ["javac", "--release", "8", "-Xlint:-options", "-encoding", "UTF-8"]
    command += ["-cp", str(library(ANDROID, vendor)), "-d", str(compiled)]
    run([*command, *map(str, sorted(SOURCES.glob("*.java")))])
    command = ["java", "-cp", str(library(DEX, vendor)), "com.android.dx.command.Main", "--dex"]
    run([*command, f"--min-sdk-version={MIN_SDK}", f"--output={made}", str(compiled)])
    return made.read_bytes()


def _write(path: Path, members: dict[str, bytes]) -> None:
    """A zip without a time of its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted(members.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            kind = zipfile.ZIP_STORED if Path(name).suffix in STORED else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, kind, compresslevel=9)
