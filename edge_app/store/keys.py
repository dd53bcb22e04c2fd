"""The keys of a store: how a passphrase gives them, what they seal, and that they can be wiped.

A header comes from a file that anybody may have made: what it may ask of time and memory is
bounded, and what it does not need is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import threading
import unicodedata
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edge_app.i18n.language import N_
from edge_app.store.memory import wipe
from edge_app.store.records import StoreError, WrongKey

KEY, NONCE, TAG = 32, 12, 16  # bytes
# Above what RFC 9106 asks where memory is short (64 MiB, 3 passes), and still below a second on
# a Jetson. Scrypt only stands in where the OpenSSL beneath lacks Argon2id.
ARGON2 = {"iterations": 4, "lanes": 4, "memory_cost": 128 * 1024}  # KiB
SCRYPT = {"n": 2**17, "r": 8, "p": 1}
# What a file may ask for: four times ours.
MAX_MEMORY = 2**29  # bytes
MAX_WORK = 2**31  # bytes that are gone through, over all passes
RANGES = {
    "argon2id": {"iterations": (1, 64), "lanes": (1, 16), "memory_cost": (8, MAX_MEMORY // 1024)},
    "scrypt": {"n": (2**10, 2**20), "r": (1, 32), "p": (1, 16)},
}
MAX_HEADER = 4096  # bytes
SALTS = (16, 64)  # bytes
DAMAGED_HEADER = N_("the store's header is damaged: restore it from an export")
CLOSED = N_("the store is closed")
PURPOSE = b"dermedge store key"


class Keys:
    """What the data key is used for. Each method may be called from any thread; after `wipe` each
    raises StoreError.

    `secret` : the data key, bytearray (32,); it is overwritten.
    """

    def __init__(self, secret: bytearray):
        self._lock = threading.Lock()
        self._records = _derived(secret, b"dermedge store records")
        self._mac = _derived(secret, b"dermedge store audit")
        # Names this store in what is copied from it; the data key does not follow from it.
        self.origin = bytes(_derived(secret, b"dermedge store origin")[:8]).hex()
        wipe(secret)
        self._aead: AESGCM | None = AESGCM(self._records)

    def wipe(self) -> None:
        """Overwrite the keys. A second call does nothing."""
        with self._lock:
            self._aead = None  # OpenSSL overwrites its own copy
            wipe(self._records)
            wipe(self._mac)

    def seal(self, data: bytes | bytearray, *where: str) -> bytes:
        nonce = os.urandom(NONCE)
        with self._lock:
            return nonce + self._ready().encrypt(nonce, data, _bound(where))

    def open(self, sealed: bytes, *where: str) -> bytes:
        with self._lock:
            aead = self._ready()
            try:
                return aead.decrypt(sealed[:NONCE], sealed[NONCE:], _bound(where))
            except (InvalidTag, ValueError, TypeError):  # a damaged row may hold anything
                raise _tampered(where[0]) from None

    def record(self, sealed: bytes, *where: str):
        """What was sealed as JSON."""
        try:
            text = bytearray(len(sealed) - NONCE - TAG)
        except (ValueError, TypeError):
            raise _tampered(where[0]) from None
        try:
            with self._lock:
                aead = self._ready()
                aead.decrypt_into(sealed[:NONCE], sealed[NONCE:], _bound(where), text)
            return json.loads(text)
        except (InvalidTag, ValueError, TypeError, RecursionError):
            raise _tampered(where[0]) from None
        finally:
            wipe(text)

    def chain(self, mac: bytes, number: int, sealed: bytes) -> bytes:
        with self._lock:
            self._ready()
            return hmac.digest(self._mac, mac + number.to_bytes(8, "big") + sealed, "sha256")

    def _ready(self) -> AESGCM:
        if self._aead is None:
            raise StoreError(CLOSED, code="closed")
        return self._aead


def _tampered(part: str) -> StoreError:
    return StoreError(
        "a {part} in the store is damaged or was tampered with: restore it from an export",
        code="damaged",
        part=part,
    )


def _derived(secret: bytearray, purpose: bytes) -> bytearray:
    found = bytearray(KEY)
    HKDF(hashes.SHA256(), KEY, salt=None, info=purpose).derive_into(secret, found)
    return found


def _bound(where: tuple[str, ...]) -> bytes:
    # The 1 is the version of the records' form.
    return "\0".join(("dermedge store", "1", *where)).encode()


# ---------------------------------------------------------------------------- the passphrase


def wrap(
    secret: bytearray, passphrase: str, argon2: Mapping[str, int], scrypt: Mapping[str, int]
) -> dict:
    """The header of a store: how the passphrase gives its data key."""
    header = {"kdf": "argon2id", "cost": dict(argon2), "salt": os.urandom(SALTS[0]).hex()}
    try:
        key = _stretched(header, passphrase)
    except UnsupportedAlgorithm:
        header |= {"kdf": "scrypt", "cost": dict(scrypt)}
        key = _stretched(header, passphrase)
    nonce = os.urandom(NONCE)
    wrapped = AESGCM(key).encrypt(nonce, secret, PURPOSE)
    wipe(key)
    return header | {"key": (nonce + wrapped).hex()}


def unwrap(header: dict, passphrase: str) -> bytearray:
    """The data key. Raises WrongKey; StoreError for a header that asks for what it should not."""
    _check(header)
    wrapped, secret = bytes.fromhex(header["key"]), bytearray(KEY)
    try:
        key = _stretched(header, passphrase)
        try:
            AESGCM(key).decrypt_into(wrapped[:NONCE], wrapped[NONCE:], PURPOSE, secret)
        finally:
            wipe(key)
    except InvalidTag:
        raise WrongKey("the passphrase is wrong", code="wrong-key") from None
    except UnsupportedAlgorithm:
        raise StoreError(
            "this store's key needs Argon2id, which the OpenSSL here lacks: update the package "
            "cryptography",
            code="no-argon2",
        ) from None
    return secret


def _check(header: object) -> None:
    """Refuse a header that is none, or whose key would take too much time or memory."""
    sound = isinstance(header, dict) and set(header) == {"kdf", "cost", "salt", "key"}
    ranges = RANGES.get(header["kdf"]) if sound and isinstance(header["kdf"], str) else None
    cost = header["cost"] if ranges else None
    sound = isinstance(cost, dict) and set(cost) == set(ranges) and all(
        type(cost[name]) is int and low <= cost[name] <= high
        for name, (low, high) in ranges.items()
    )  # fmt: skip
    if sound and header["kdf"] == "argon2id":
        sound = cost["memory_cost"] >= 8 * cost["lanes"]  # RFC 9106, 3.1
        memory, passes = cost["memory_cost"] * 1024, cost["iterations"]
    elif sound:
        sound = cost["n"] & (cost["n"] - 1) == 0
        memory, passes = 128 * cost["n"] * cost["r"], cost["p"]
    low, high = SALTS
    if (
        not sound
        or memory > MAX_MEMORY
        or memory * passes > MAX_WORK
        or not _is_hex(header["salt"], low, high)
        or not _is_hex(header["key"], NONCE + KEY + TAG, NONCE + KEY + TAG)
    ):
        raise StoreError(DAMAGED_HEADER, code="header")


def _is_hex(text: object, low: int, high: int) -> bool:
    return isinstance(text, str) and bool(
        re.fullmatch(rf"(?:[0-9a-fA-F]{{2}}){{{low},{high}}}", text)
    )


def _stretched(header: dict, passphrase: str) -> bytearray:
    function = Argon2id if header["kdf"] == "argon2id" else Scrypt
    # Two keyboards may write one letter in two ways.
    text = unicodedata.normalize("NFC", passphrase)
    typed, key = bytearray(4 * len(text)), bytearray(KEY)
    end = 0
    for character in text:  # so that no bytes of the whole are left behind
        piece = character.encode(errors="surrogatepass")
        typed[end : end + len(piece)] = piece
        end += len(piece)
    try:
        salt = bytes.fromhex(header["salt"])
        with memoryview(typed)[:end] as exact:
            function(salt=salt, length=KEY, **header["cost"]).derive_into(exact, key)
    finally:
        wipe(typed)
    return key


def packed(header: dict) -> bytes:
    """As it is stored. The checksum tells a damaged header from a wrong passphrase."""
    text = json.dumps(header).encode()
    return hashlib.sha256(text).digest() + text


def unpacked(value: object) -> dict:
    text = value if isinstance(value, bytes) and len(value) <= MAX_HEADER else b""
    try:
        if hashlib.sha256(text[32:]).digest() == text[:32]:
            return json.loads(text[32:])
    except (ValueError, RecursionError):
        pass
    raise StoreError(DAMAGED_HEADER, code="header")
