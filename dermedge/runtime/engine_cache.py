"""The cache of TensorRT engines: built on the device, and loaded only where they belong.

An engine file is a line that names the format, a line with the SHA-256 of all that follows, a line
of JSON that says what the engine is, and the engine. An engine is code that TensorRT runs
unchecked, so that only one which this machine would build itself is ever given to TensorRT. The
hash finds damage and mix-ups. It is no signature: who may write to the cache may run code, and
its folder is made for its owner alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import Variant
from dermedge.files import cache_folder, check_folder, write_atomic
from dermedge.runtime import ENGINES, Session, SessionError, tensorrt

SUFFIX = ".engine"
_MAGIC = b"dermedge engine 1\n"
_REFUSED = "engine {path} is refused: {reason}; run `dermedge engine build --bundle FILE`"


@dataclass(frozen=True)
class Key:
    """What an engine belongs to; it is loaded where all of this is the same.

    The precision needs no field: networks are strongly typed, `graph` says it.
    """

    bundle: str  # SHA-256 of the bundle's file
    graph: str  # SHA-256 of the ONNX graph
    provider: str  # one of `dermedge.runtime.ENGINES`
    version: str  # of its Python bindings
    device: str  # `tensorrt.device`

    @classmethod
    def here(cls, model: bytes, provider: str, bundle_sha256: str) -> Key:
        """The key of a graph's engine on this machine. SessionError as `tensorrt.device` says."""
        graph = hashlib.sha256(model).hexdigest()
        version, device = tensorrt.version(provider), tensorrt.device(provider)
        return cls(bundle_sha256, graph, provider, version, device)

    @property
    def file(self) -> str:
        """Names what is built, not for what: a newer TensorRT's engine replaces the older one."""
        return f"{self.bundle[:16]}-{self.graph[:16]}-{self.provider}{SUFFIX}"

    def difference(self, other: Key) -> str:
        """In words, why an engine of `self` does not serve `other`; "" where it does."""
        if self.provider != other.provider or self.version != other.version:
            mine, its = f"{self.provider} {self.version}", f"{other.provider} {other.version}"
            return f"it was built by {mine}, here is {its}"
        if self.device != other.device:
            return f"it was built for {self.device}, here is {other.device}"
        if self.bundle != other.bundle or self.graph != other.graph:
            return "it was built from another bundle"
        return ""


@dataclass(frozen=True)
class Header:
    """What an engine file says of its engine."""

    key: Key
    name: str  # of the bundle, for people to read, as are the next ones
    roles: str  # e.g. "segmenter", or "segmenter and classifier"
    precision: str
    convolutions: int  # after fusion; 0 where TensorRT does not say
    int8: int  # of them, those that multiply INT8


@dataclass(frozen=True)
class Engine:
    """An engine file that was read or written."""

    path: Path
    header: Header
    size: int  # bytes of the engine
    seconds: float | None = None  # that building took; None: the file was there


def folder() -> Path:
    """DERMEDGE_ENGINES, or `dermedge/engines` in the user's cache. SessionError: there is none."""
    if os.environ.get("DERMEDGE_ENGINES"):
        return Path(os.environ["DERMEDGE_ENGINES"])
    try:
        return cache_folder() / "engines"
    except OSError:
        raise SessionError("there is no folder for engines: set DERMEDGE_ENGINES") from None


def to_file(header: Header, engine: bytes) -> bytes:
    """The content of an engine file."""
    rest = json.dumps(asdict(header), sort_keys=True).encode() + b"\n" + engine
    return _MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def from_file(content: bytes) -> tuple[Header, bytes]:
    """Header and engine of an engine file's content.

    Raises SessionError where it is none, is cut short, or was changed.
    """
    if not content.startswith(_MAGIC):
        raise SessionError("it is no engine file of this dermedge")
    digest, _, rest = content[len(_MAGIC) :].partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise SessionError("it is damaged, or was changed after it was built")
    header, _, engine = rest.partition(b"\n")
    try:
        return _header(json.loads(header)), engine
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SessionError("its header cannot be read") from None


def _header(content: dict[str, Any]) -> Header:
    header = Header(Key(**content.pop("key")), **content)
    texts = (*asdict(header.key).values(), header.name, header.roles, header.precision)
    numbers = (header.convolutions, header.int8)
    if not all(type(value) is str for value in texts) or header.key.provider not in ENGINES:
        raise TypeError
    if not all(type(value) is int for value in numbers):
        raise TypeError
    return header


def load_engine(model: bytes, provider: str, bundle_sha256: str) -> Session:
    """The session of a graph whose engine `build_engine` made on this machine.

    Parameters
    ----------
    model : the ONNX graph, as the bundle holds it.
    provider : one of `dermedge.runtime.ENGINES`.
    bundle_sha256 : of the bundle's file.

    Raises
    ------
    SessionError
        In one line, where there is no engine, or it is damaged or was built from another bundle
        or for another GPU or version; TensorRT has not seen it then.
    """
    key = Key.here(model, provider, bundle_sha256)
    path = folder() / key.file
    try:
        header, engine = from_file(path.read_bytes())
    except FileNotFoundError:
        raise SessionError(
            "there is no {provider} engine of this graph: run `dermedge engine build --bundle "
            "FILE`",
            code="engine.missing",
            provider=provider,
        ) from None
    except OSError as error:
        raise SessionError(
            "cannot read engine {path}: {reason}",
            code="engine.unreadable",
            path=path,
            reason=error.strerror,
        ) from None
    except SessionError as error:
        raise SessionError(_REFUSED, code="engine.refused", path=path, reason=error) from None
    reason = header.key.difference(key)
    if reason:
        raise SessionError(_REFUSED, code="engine.refused", path=path, reason=reason)
    return tensorrt.TensorRTSession(engine, provider)


def build_engine(
    bundle: Bundle, variant: Variant, roles: list[str], provider: str, out: Path
) -> Engine:
    """The engine of a bundle's graph for this machine, built unless `out` holds it already.

    Parameters
    ----------
    bundle, variant, roles : the graph, and the roles that it plays.
    provider : one of `dermedge.runtime.ENGINES`.
    out : folder of the engine file, made where it is missing.

    Raises
    ------
    SessionError
        Where TensorRT is missing or refuses the graph.
    """
    model = bundle.part(variant.part)
    key = Key.here(model, provider, bundle.sha256)
    path = out / key.file
    stored = _read(path)
    if isinstance(stored, Engine) and stored.header.key == key:
        return stored
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(out)  # minutes of building would be lost where this fails
    built = tensorrt.build(model, provider)
    convolutions = [layer for layer in built.layers if layer.convolution]
    header = Header(
        key,
        bundle.manifest.name,
        " and ".join(roles),
        variant.precision,
        len(convolutions),
        sum(layer.int8 for layer in convolutions),
    )
    write_atomic(path, to_file(header, built.engine), private=True)
    return Engine(path, header, len(built.engine), built.seconds)


def engines(where: Path) -> Iterator[tuple[Path, Engine | str]]:
    """Every engine file of a folder, with the engine or why it cannot be read.

    OSError where the folder cannot be read.
    """
    for path in sorted(path for path in where.iterdir() if path.suffix == SUFFIX):
        yield path, _read(path)


def misfit(key: Key) -> str:
    """In words, why an engine with this key does not run on this machine; "" where it does."""
    try:
        version, device = tensorrt.version(key.provider), tensorrt.device(key.provider)
        reason = key.difference(Key(key.bundle, key.graph, key.provider, version, device))
        if not reason:
            tensorrt.gpu(key.provider)
    except SessionError as error:
        return str(error)
    return reason


def _read(path: Path) -> Engine | str:
    try:
        header, engine = from_file(path.read_bytes())
    except OSError as error:
        return error.strerror or str(error)
    except SessionError as error:
        return str(error)
    return Engine(path, header, len(engine))
