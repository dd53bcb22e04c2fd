"""Makes the site: a folder of static files that any web host can serve.

What the page consists of is packed file by file under the checksum of its content; `sw.js` lists
them. The same inputs give the same bytes.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import dermedge
import edge_app
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import CASES, OUTLIERS
from dermedge.bundle.reference import REFERENCE
from dermedge.files import check_folder, names_in
from dermedge.lesion.scale import REFERENCES
from edge_app.browser import nearest
from edge_app.i18n.language import FOLDER, LANGUAGES, RIGHT_TO_LEFT
from edge_app.presentation.estimate import TERMS
from edge_app.store import database, derivation
from edge_app.ui import theme
from edge_app.web import codes, packages
from edge_app.web.packages import OPENCV, PACKAGES, PYODIDE, RUNTIME, SQLITE
from edge_app.web.site import PAGE, POLICY, Report, filled, node, packed, unpacker, write_site

PYTHON = Path(__file__).with_name("python")
# Of dermedge what a picture's way needs; of edge_app the words of its result.
CORE = (
    *("__init__", "analysis", "analyzer", "combine", "files", "metadata", "network", "taxonomy"),
    *("outlier", "telemetry", "text", "triage", "bundle", "image", "lesion", "runtime/__init__"),
    *("runtime/browser", "runtime/parity", "analysis.schema"),
)
WORDS = (
    *("__init__", "i18n/__init__", "i18n/language", "presentation/__init__"),
    *("web/__init__", "web/case", "web/referral"),
    *("presentation/body_map", "presentation/skin_type"),
    *(f"referral/{name}" for name in ("__init__", "codes", "consent", "fhir", "fhir_check")),
    *(f"referral/{name}" for name in ("form", "history", "review", "uids")),
)
# And what of the app's store says what is in a file that it imports.
STORE = ("__init__", "clock", "passphrase", "records", "schema")
# Of Python's own library what Pyodide, numpy and we import; what is missing by mistake fails the
# test of the page.
OF_PYTHON = re.compile(
    r"(_?pyodide|asyncio|collections|concurrent|ctypes|importlib|json|re|zipfile|__future__|"
    r"_compat_pickle|_compression|_sysconfigdata.*|_weakrefset|ast|base64|bisect|bz2|calendar|"
    r"contextlib|contextvars|copy|copyreg|csv|dataclasses|datetime|_strptime|difflib|dis|enum|"
    r"fnmatch|fractions|functools|gettext|glob|gzip|hashlib|heapq|hmac|inspect|io|ipaddress|"
    r"keyword|linecache|locale|numbers|opcode|operator|pathlib|pickle|platform|queue|random|"
    r"reprlib|secrets|selectors|shutil|signal|socket|statistics|string|struct|subprocess|sysconfig|"
    r"tempfile|textwrap|threading|token|tokenize|traceback|types|typing|uuid|warnings|weakref|"
    r"stat|codecs|os|site|abc|_collections_abc|posixpath|genericpath|zipimport|runpy|"
    r"logging/__init__|urllib/(__init__|parse)|encodings/(__init__|aliases|cp437|utf_8|ascii|"
    r"latin_1|utf_16|idna|unicode_escape))(/|\.py$)"
)
# Of numpy what no page of ours imports.
NOT_OF_NUMPY = re.compile(
    r"(^|/)(tests|f2py|include|distutils|testing|polynomial|random|typing|_pyinstaller|"
    r"doc|pkgconfig)/|\.(pyi|a|pxd|pyx|h|c|txt|in|build|ini)$|(?<!array)_tests\.|conftest|lapack_lite|timer_comparison|testutils|"
    r"dist-info/(?!METADATA)"
)
LICENCES = ", ".join(
    [
        "dermedge (Apache-2.0)",
        *(f"{package.name} {package.version} ({package.licence})" for package in PACKAGES),
        "NumPy (BSD-3-Clause)",
    ]
)


ZIPS = ("python_stdlib.zip", "numpy.zip", "core.zip")
SCRIPTS = ("app.js", "kept.js", "referral.js")  # of the page itself
PAGES = ("index.html", "style.css", *SCRIPTS, "worker.js")
WORKER_SCRIPTS = ("opencv_bridge.js", "seal.js", "unseal.js", "opfs.js")


def build(
    bundle: Bundle,
    out: Path,
    vendor: Path,
    numpy_wheel: Path | None = None,
    quality: int = 11,
) -> Report:
    """Write the site into `out`, a new or empty folder, or one that this wrote before.

    Parameters
    ----------
    bundle : of it the page gets the FP32 networks for the browser's processor.
    vendor : folder of the packages of npm; what is missing there `npm pack` brings.
    numpy_wheel : numpy for Pyodide; default: one in `vendor`.
    quality : of the compression by Brotli, 0 (quick) to 11 (small; a minute or more, once: what
        was packed is kept in `vendor`).

    Raises
    ------
    PackageError : a package cannot be had, or is another one.
    BundleError : the bundle has no FP32 networks.
    UserError : `out` is a folder with other files in it.
    OSError : nothing can be written into `out`, or nothing kept in `vendor`.
    """
    if names_in(out) and not (out / "sw.js").is_file():
        raise UserError("{path} holds other files: give a new folder", code="web.folder", path=out)
    for folder in (out, vendor / "packed"):
        try:  # minutes of packing would be lost
            check_folder(nearest(folder.absolute()) or folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
    if numpy_wheel is None:
        numpy_wheel = next(iter(sorted(vendor.glob("numpy-*pyodide*.whl"))), None)
    content = _programs(vendor, numpy_wheel)
    content = {f"files/{name}": value for name, value in content.items()}
    content["files/model.dermbundle"] = _bundle(bundle)
    for name in WORKER_SCRIPTS:
        content[f"files/{name}"] = (PAGE / name).read_bytes()
    content |= {name: page(name) for name in PAGES}
    content |= _about()
    unpack = unpacker(vendor)
    return write_site(out, content, packed(vendor / "packed", content, quality), unpack)


def _programs(vendor: Path, wheel: Path | None) -> Mapping[str, bytes]:
    """All that does not depend on the bundle, by the name under which the worker asks for it."""
    archives = packages.fetch(vendor)
    content = {**_foreign(archives, wheel), "core.zip": _core()}
    return {**content, **_compiled(archives[PYODIDE], {name: content[name] for name in ZIPS})}


def _foreign(archives: Mapping[packages.Package, Path], wheel: Path | None) -> dict[str, bytes]:
    """What others made."""
    names = ("pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip")
    pyodide = packages.members(
        archives[PYODIDE], {name: name for name in (*names, "pyodide-lock.json")}
    )
    numpy = packages.numpy_wheel(pyodide["pyodide-lock.json"], wheel)
    lock = json.loads(pyodide["pyodide-lock.json"])
    pyodide["pyodide-lock.json"] = json.dumps({**lock, "packages": {}}).encode()
    pyodide["python_stdlib.zip"] = _repacked(
        pyodide["python_stdlib.zip"], lambda name: not OF_PYTHON.match(name)
    )
    script, binary = _opencv(packages.members(archives[OPENCV], {"js": "dist/opencv.js"})["js"])
    runtime = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    database_files = {name: f"dist/{name}" for name in ("sql-wasm.js", "sql-wasm.wasm")}
    return {
        **pyodide,
        **packages.members(archives[SQLITE], database_files),
        **packages.members(archives[RUNTIME], {name: f"dist/{name}" for name in runtime}),
        "numpy.zip": _repacked(numpy, NOT_OF_NUMPY.search),
        "opencv.js": script,
        "opencv.wasm": binary,
    }


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def _opencv(source: bytes) -> tuple[bytes, bytes]:
    """OpenCV.js without the program that it holds as text, and that program.

    As a file of its own it is compiled while it is read, and its text takes no memory.
    """
    text = source.decode()
    start = text.index(begin := "binaryDecode('") + len(begin)
    literal = re.compile(r"(?:[^'\\]|\\.)*", re.DOTALL).match(text, start)
    assert literal is not None, "the pattern matches an empty text, too"

    def unescape(match: re.Match[str]) -> str:
        escape = match[1]
        if escape[0] in "xu":
            return chr(int(escape[1:], 16))
        return _ESCAPES.get(escape, escape)

    plain = re.sub(r"\\(x..|u....|.)", unescape, literal[0], flags=re.DOTALL)
    # As its own `binaryDecode`: U+0100 stands for a zero.
    try:
        binary = plain.replace("\u0100", "\0").encode("latin-1")
    except UnicodeEncodeError:
        binary = b""
    if not binary.startswith(b"\0asm"):
        raise packages.PackageError("OpenCV.js is not built as expected", code="web.package")
    text = text[: start - len(begin)] + "null" + text[literal.end() + 2 :]
    options = "var Module = {};"
    if text.count(options) != 1:
        raise packages.PackageError("OpenCV.js is not built as expected", code="web.package")
    return text.replace(options, "var Module = self.opencvOptions;").encode(), binary


def _zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Not compressed: the whole is, when it is sent."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(members):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return buffer.getvalue()


def _repacked(archive: bytes, unused) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as given:
        names = [name for name in given.namelist() if not name.endswith("/") and not unused(name)]
        return _zipped((name, given.read(name)) for name in names)


def _compiled(archive: Path, zips: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same archives, their Python compiled by that Python: half of a start would go there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        files = []
        for zipped, content in zips.items():
            (folder / zipped).write_bytes(content)
            files += [str(folder / zipped), str(folder / f"{zipped}.compiled")]
        node("compile.mjs", str(folder / "package"), *files)
        return {zipped: (folder / f"{zipped}.compiled").read_bytes() for zipped in zips}


def _core() -> bytes:
    """Our own Python, as it is, and the two modules that stand for others in a browser."""
    device, app = Path(dermedge.__file__).parent, Path(edge_app.__file__).parent
    members = {}
    for name in CORE:
        for path in _sources(device, name):
            members[f"dermedge/{path.relative_to(device).as_posix()}"] = path.read_bytes()
    for name in (*WORDS, "presentation/estimate", *(f"store/{name}" for name in STORE)):
        for path in _sources(app, name):
            members[f"edge_app/{path.relative_to(app).as_posix()}"] = path.read_bytes()
    members["edge_app/i18n/formats.py"] = (PYTHON / "formats.py").read_bytes()
    members["edge_app/referral/encoding.py"] = (PYTHON / "encoding.py").read_bytes()
    members |= codes.members()
    for language in LANGUAGES:
        if language != "en":
            text = json.dumps(_catalogue(language), ensure_ascii=False)
            members[f"edge_app/i18n/locale/{language}.json"] = text.encode()
    members["edge_app/web/store.json"] = json.dumps(_store_form()).encode()
    for name in ("cv2.py", "page.py"):
        members[name] = (PYTHON / name).read_bytes()
    return _zipped(members.items())


def _store_form() -> dict:
    """Of the app's sealed file what `case.py` hands on to `page/seal.js`."""
    return {
        "statements": database.statements(database.SCHEMA),
        "application": database.APPLICATION,
        "version": database.VERSION,
        "purpose": derivation.PURPOSE.decode(),
    }


def _sources(room: Path, name: str) -> list[Path]:
    folder = room / name
    if folder.is_dir():
        return list(folder.rglob("*.py"))
    found = [path for path in (room / f"{name}.py", room / f"{name}.json") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"{name} is not in {room}")
    return found


def _catalogue(language: str) -> dict:
    """What `python/formats.py` and the page read: English to translation, or to its forms."""
    from babel.messages.pofile import read_po

    with (FOLDER / f"{language}.po").open("rb") as file:
        read = read_po(file, language)
    messages = {}
    for message in read:
        if message.id and message.string:
            one = message.id if isinstance(message.id, str) else message.id[0]
            messages[one] = (
                message.string if isinstance(message.string, str) else list(message.string)
            )
    return {"plural": read.plural_expr, "messages": messages}


def _bundle(bundle: Bundle) -> bytes:
    """The FP32 networks alone, with what the page shows or checks of them."""
    sliced = bundle.sliced(
        {role: bundle.variant(role, "fp32", "x86") for role in bundle.manifest.models}
    )
    wanted = {*sliced.graphs(), CASES, OUTLIERS, REFERENCE} & set(sliced.manifest.parts)
    parts = {name: sliced.part(name) for name in sorted(wanted)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.dermbundle")
        write_bundle(path, replace(sliced.manifest, parts={}), parts)
        return path.read_bytes()


def page(name: str) -> bytes:
    """One of the page's own files, with its words, colours and policy."""
    from edge_app.i18n.language import N_
    from edge_app.web.messages import MESSAGES

    text = (PAGE / name).read_text(encoding="utf-8")
    references = [["", N_("nothing"), ""]]
    for reference in REFERENCES:
        coin = reference.startswith("coin-")
        said = reference.removeprefix("coin-").replace("-", " ")
        references.append([reference, N_("coin {name}") if coin else reference, said])
    used = {*re.findall(r'data-(?:t|label)="([^"]*)"', (PAGE / "index.html").read_text("utf-8"))}
    script = "".join((PAGE / name).read_text("utf-8") for name in SCRIPTS)
    used |= {"".join(re.findall(r'"([^"]*)"', call)) for call in
             re.findall(r'\bt\(((?:"[^"]*"\s*\+?\s*)+)', script)}  # fmt: skip
    used |= {*MESSAGES, *TERMS, DISCLAIMER, *(english for _key, english, _name in references)}
    words = {}
    for language in LANGUAGES:
        if language != "en":
            known = _catalogue(language)["messages"]
            messages = {message: known[message] for message in sorted(used) if message in known}
            words[language] = {"messages": messages}
    light, dark = theme.STYLES["light"], theme.STYLES["dark"]
    values = {
        "POLICY": POLICY,
        "WORDS": json.dumps(words, ensure_ascii=False),
        "TERMS": json.dumps(TERMS),
        "DISCLAIMER": json.dumps(DISCLAIMER),
        "REFERENCES": json.dumps(references),
        "LANGUAGES": json.dumps(LANGUAGES, ensure_ascii=False),
        "RIGHT_TO_LEFT": json.dumps(sorted(RIGHT_TO_LEFT)),
        "LICENCES": LICENCES,
        "HEAD_LIGHT": theme.hex_color(light["head"].ground),
        "HEAD_DARK": theme.hex_color(dark["head"].ground),
        "OUTLINE": theme.hex_color(theme.OUTLINE),
        "OUTLINE_EDGE": theme.hex_color(theme.OUTLINE_EDGE),
        "COLOURS": f":root {{ {theme.css(light)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {theme.css(dark)} }} }}",
    }
    return filled(text, values).encode()


def _about() -> dict[str, bytes]:
    """The web app manifest, its icons, and the size card in each language."""
    from edge_app.documents.size_card import size_card
    from edge_app.i18n import language

    icons = [
        {"src": f"icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png",
         "purpose": "any maskable"}
        for side in (192, 512)
    ]  # fmt: skip
    manifest = {
        "id": "./",
        "name": "dermedge",
        "short_name": "dermedge",
        "description": DISCLAIMER,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": theme.hex_color(theme.STYLES["light"]["page"].ground),
        "theme_color": theme.hex_color(theme.STYLES["light"]["head"].ground),
        "icons": icons,
    }
    content = {"manifest.webmanifest": json.dumps(manifest, indent=1).encode()}
    content |= {f"icon-{side}.png": _icon(side) for side in (180, 192, 512)}
    before = language.current()
    for name in LANGUAGES:
        language.use(name)
        content[f"size-card-{name}.pdf"] = re.sub(
            rb"/CreationDate \([^)]*\)|/ID \[[^\]]*\]",
            lambda found: b" " * len(found[0]),  # readers find the rest by its place
            size_card("a4"),
        )
    language.use(before)
    return content


def _icon(side: int) -> bytes:
    """A spot and a ring about it, on the app's colour; whole within the circle of a mask."""
    import cv2
    import numpy as np

    def bgr(color: theme.Color) -> list[int]:
        return [round(255 * value) for value in color[2::-1]]

    large = 4 * side
    picture = np.full((large, large, 3), bgr(theme.STYLES["light"]["button"].ground), np.uint8)
    centre = (large // 2, large // 2)
    cv2.circle(picture, centre, round(0.30 * large), bgr(theme.OUTLINE), -1, cv2.LINE_AA)
    ground = bgr(theme.STYLES["light"]["button"].ground)
    cv2.circle(picture, centre, round(0.25 * large), ground, -1, cv2.LINE_AA)
    spot = (round(0.15 * large), round(0.12 * large))
    cv2.ellipse(picture, centre, spot, 25, 0, 360, bgr(theme.OUTLINE), -1, cv2.LINE_AA)
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", small)[1].tobytes()
