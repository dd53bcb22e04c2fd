"""Writes the folder of a site: each file packed under the checksum of its content, and `sw.js`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dermedge.files import write_atomic
from edge_app.web import packages
from edge_app.web.packages import BROTLI

PAGE = Path(__file__).with_name("page")
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


@dataclass(frozen=True)
class Report:
    """What was built.

    build : its checksum. bytes : of a first visit, as they are sent. files : path to bytes sent.
    """

    build: str
    bytes: int
    files: Mapping[str, int]


def write_site(
    out: Path, content: Mapping[str, bytes], small: Mapping[str, bytes], unpack: bytes
) -> Report:
    """All files, then the one that names them; what an earlier build left goes last.

    Each is replaced as a whole: a host may serve the folder meanwhile, or the disk be full.
    """
    files: dict[str, tuple[str, str, int, int]] = {}
    folder = out / "files"
    folder.mkdir(parents=True, exist_ok=True)
    for path, value in sorted(content.items()):
        checksum = hashlib.sha256(value).hexdigest()
        kind = TYPES.get(Path(path).suffix, "application/octet-stream")
        files[path] = checksum, kind, len(value), len(small[path])
        write_atomic(folder / f"{checksum[:32]}.br", small[path])
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
            write_atomic(out / path, value)
    write_atomic(out / "unpack.js", unpack)
    write_atomic(out / "sw.js", filled(script, values))
    kept = {f"{entry[0][:32]}.br" for entry in files.values()}
    for found in folder.iterdir():
        if found.name not in kept:
            found.unlink()
    sent = {path: len(value) for path, value in small.items()}
    return Report(number, sum(sent.values()) + len(unpack), sent)


def packed(cache: Path, content: Mapping[str, bytes], quality: int) -> dict[str, bytes]:
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
            node("pack.mjs", str(quality), *map(str, files))
            for file in files:
                write_atomic(cache / f"{file.name}.br", Path(f"{file}.br").read_bytes())
    return {path: (cache / name).read_bytes() for path, name in names.items()}


def unpacker(vendor: Path) -> bytes:
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


def node(script: str, *arguments: str) -> None:
    """Run one of our scripts. Raises PackageError."""
    program = shutil.which("node")
    if program is None:
        raise packages.PackageError(
            "Node is not installed, which compiles and packs the page: install it (nodejs)",
            code="web.node",
        )
    command = [program, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-200:]
        raise packages.PackageError(
            "{script} failed: {reason}", code="web.node", script=script, reason=reason
        )


def filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], text)
