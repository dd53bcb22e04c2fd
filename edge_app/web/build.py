"""Makes the site: a folder of static files that any web host can serve.

What the page consists of is packed file by file under the checksum of its content; `sw.js` lists
them. The same inputs give the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import dermedge
import edge_app
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import CASES, Bundle, write_bundle
from dermedge.bundle.reference import REFERENCE
from dermedge.files import write_atomic
from dermedge.lesion.scale import REFERENCES
from edge_app.i18n.language import FOLDER, LANGUAGES
from edge_app.presentation.estimate import TERMS
from edge_app.ui import theme
from edge_app.web import packages
from edge_app.web.packages import BROTLI, OPENCV, PACKAGES, PYODIDE, RUNTIME

PAGE = Path(__file__).with_name("page")
PYTHON = Path(__file__).with_name("python")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
# OpenCV.js and Pyodide make functions of text, in the worker alone.
WORKER_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' 'wasm-unsafe-eval'; connect-src 'self'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".pdf": "application/pdf",
}
# Of dermedge what a picture's way needs; of edge_app the words of its result.
CORE = (
    *("__init__", "analysis", "analyzer", "combine", "files", "metadata", "network", "taxonomy"),
    *("telemetry", "text", "triage", "bundle", "image", "lesion", "runtime/__init__"),
    *("runtime/browser", "runtime/parity", "analysis.schema"),
)
WORDS = ("__init__", "i18n/__init__", "i18n/language", "presentation/__init__")
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


@dataclass(frozen=True)
class Report:
    """What was built.

    build : its checksum. bytes : of a first visit, as they are sent. files : path to bytes sent.
    """

    build: str
    bytes: int
    files: Mapping[str, int]


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
    """
    if out.exists() and any(out.iterdir()) and not (out / "sw.js").is_file():
        raise UserError("{path} holds other files: give a new folder", code="web.folder", path=out)
    if numpy_wheel is None:
        numpy_wheel = next(iter(sorted(vendor.glob("numpy-*pyodide*.whl"))), None)
    content = _programs(vendor, numpy_wheel)
    content = {f"files/{name}": value for name, value in content.items()}
    content["files/model.dermbundle"] = _bundle(bundle)
    content["files/opencv_bridge.js"] = (PAGE / "opencv_bridge.js").read_bytes()
    content |= {name: _page(name) for name in ("index.html", "style.css", "app.js", "worker.js")}
    content |= _about()
    unpack = _unpacker(vendor)
    return _write(out, content, _packed(vendor / "packed", content, quality), unpack)


@functools.lru_cache(maxsize=1)
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
    return {
        **pyodide,
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
    binary = bytes(ord(c) if ord(c) < 256 else ~ord(c) >> 8 & ord(c) & 255 for c in plain)
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
        _node("compile.mjs", str(folder / "package"), *files)
        return {zipped: (folder / f"{zipped}.compiled").read_bytes() for zipped in zips}


def _node(script: str, *arguments: str) -> None:
    """Run one of our scripts. Raises PackageError."""
    node = shutil.which("node")
    if node is None:
        raise packages.PackageError(
            "Node is not installed, which compiles and packs the page: install it (nodejs)",
            code="web.node",
        )
    command = [node, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-200:]
        raise packages.PackageError(
            "{script} failed: {reason}", code="web.node", script=script, reason=reason
        )


def _packed(cache: Path, content: Mapping[str, bytes], quality: int) -> dict[str, bytes]:
    """Each content, packed; what a cache of before holds is taken from there."""
    cache.mkdir(parents=True, exist_ok=True)
    names = {
        path: f"{hashlib.sha256(value).hexdigest()}-{quality}.br" for path, value in content.items()
    }
    missing = {name: content[path] for path, name in names.items() if not (cache / name).is_file()}
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name.removesuffix(".br")) for name in missing]
            for file, value in zip(files, missing.values(), strict=True):
                file.write_bytes(value)
            _node("pack.mjs", str(quality), *map(str, files))
            for file in files:
                write_atomic(cache / f"{file.name}.br", Path(f"{file}.br").read_bytes())
    return {path: (cache / name).read_bytes() for path, name in names.items()}


def _unpacker(vendor: Path) -> bytes:
    """Brotli's own decoder in JavaScript, its modules in one file: `unpackBrotli(bytes)`."""
    names = [
        *("decode", "streams", "bit_reader", "dictionary", "huffman", "context", "prefix"),
        *("transform", "dictionary.bin", "dictionary-browser"),
    ]
    archive = packages.fetch(vendor)[BROTLI]
    modules = packages.members(archive, {name: f"dec/{name}.js" for name in names})
    # The dictionary's short form, which unpacks itself.
    modules["dictionary-data"] = modules.pop("dictionary-browser")
    parts = [
        f"{json.dumps(name)}: function (exports, module, require) {{\n{code.decode()}\n}}"
        for name, code in sorted(modules.items())
    ]
    script = (PAGE / "unpack.js").read_text(encoding="utf-8")
    return script.replace("@MODULES@", ",\n".join(parts)).encode()


def _core() -> bytes:
    """Our own Python, as it is, and the two modules that stand for others in a browser."""
    device, app = Path(dermedge.__file__).parent, Path(edge_app.__file__).parent
    members = {}
    for name in CORE:
        for path in _sources(device, name):
            members[f"dermedge/{path.relative_to(device).as_posix()}"] = path.read_bytes()
    for name in (*WORDS, "presentation/estimate"):
        for path in _sources(app, name):
            members[f"edge_app/{path.relative_to(app).as_posix()}"] = path.read_bytes()
    members["edge_app/i18n/formats.py"] = (PYTHON / "formats.py").read_bytes()
    for language in LANGUAGES:
        if language != "en":
            text = json.dumps(_catalogue(language), ensure_ascii=False)
            members[f"edge_app/i18n/locale/{language}.json"] = text.encode()
    for name in ("cv2.py", "page.py"):
        members[name] = (PYTHON / name).read_bytes()
    return _zipped(members.items())


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
    wanted = {*sliced.graphs(), CASES, REFERENCE} & set(sliced.manifest.parts)
    parts = {name: sliced.part(name) for name in sorted(wanted)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.dermbundle")
        write_bundle(path, replace(sliced.manifest, parts={}), parts)
        return path.read_bytes()


def _page(name: str) -> bytes:
    from edge_app.i18n.language import N_
    from edge_app.web.messages import MESSAGES

    text = (PAGE / name).read_text(encoding="utf-8")
    references = [["", N_("nothing"), ""]]
    for reference in REFERENCES:
        coin = reference.startswith("coin-")
        said = reference.removeprefix("coin-").replace("-", " ")
        references.append([reference, N_("coin {name}") if coin else reference, said])
    used = {*re.findall(r'data-(?:t|label)="([^"]*)"', (PAGE / "index.html").read_text("utf-8"))}
    script = (PAGE / "app.js").read_text(encoding="utf-8")
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
        "LICENCES": LICENCES,
        "HEAD_LIGHT": _hex(light["head"].ground),
        "HEAD_DARK": _hex(dark["head"].ground),
        "OUTLINE": _hex(theme.OUTLINE),
        "OUTLINE_EDGE": _hex(theme.OUTLINE_EDGE),
        "COLOURS": f":root {{ {_colours(light)} }}\n@media screen and (prefers-color-scheme: dark) "
        f"{{ :root {{ {_colours(dark)} }} }}",
    }
    return _filled(text, values).encode()


def _filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], text)


def _colours(look: Mapping[str, theme.Style]) -> str:
    return " ".join(
        f"--{name}: {_hex(style.ground)}; --{name}-text: {_hex(style.text)};"
        for name, style in look.items()
    )


def _hex(color: theme.Color) -> str:
    return "#" + "".join(f"{round(255 * value):02X}" for value in color[:3])


def _about() -> dict[str, bytes]:
    """The web app manifest, its icons, and the size card."""
    from dermedge.lesion.scale import write_card

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
        "background_color": _hex(theme.STYLES["light"]["page"].ground),
        "theme_color": _hex(theme.STYLES["light"]["head"].ground),
        "icons": icons,
    }
    content = {"manifest.webmanifest": json.dumps(manifest, indent=1).encode()}
    content |= {f"icon-{side}.png": _icon(side) for side in (180, 192, 512)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "card.pdf")
        write_card(path)
        content["size-card.pdf"] = re.sub(
            rb"/CreationDate \([^)]*\)|/ID \[[^\]]*\]", b"", path.read_bytes()
        )
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


def _write(
    out: Path, content: Mapping[str, bytes], small: Mapping[str, bytes], unpack: bytes
) -> Report:
    """All files, then the one that names them; what an earlier build left goes last."""
    files: dict[str, tuple[str, str, int, int]] = {}
    packed = out / "files"
    packed.mkdir(parents=True, exist_ok=True)
    for path, value in sorted(content.items()):
        checksum = hashlib.sha256(value).hexdigest()
        kind = TYPES.get(Path(path).suffix, "application/octet-stream")
        files[path] = checksum, kind, len(value), len(small[path])
        (packed / f"{checksum[:32]}.br").write_bytes(small[path])
    listing = json.dumps(files, sort_keys=True)
    script = (PAGE / "sw.js").read_text(encoding="utf-8")
    number = hashlib.sha256(f"{script}{listing}".encode()).hexdigest()[:16]
    values = {
        "BUILD": number,
        "FILES": listing,
        "POLICY": POLICY,
        "WORKER_POLICY": WORKER_POLICY,
    }
    for path, value in content.items():
        # What a browser asks for before the page is kept.
        if "/" not in path:
            (out / path).write_bytes(value)
    (out / "unpack.js").write_bytes(unpack)
    (out / "sw.js").write_text(_filled(script, values), encoding="utf-8")
    kept = {f"{entry[0][:32]}.br" for entry in files.values()}
    for found in packed.iterdir():
        if found.name not in kept:
            found.unlink()
    sent = {path: len(value) for path, value in small.items()}
    return Report(number, sum(sent.values()) + len(unpack), sent)
