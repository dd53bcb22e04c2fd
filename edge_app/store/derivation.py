"""How a passphrase gives the data key of a store: the header of its file.

A header comes from a file that anybody may have made: what it may ask of time and memory is
bounded, and what it does not need is refused. Functions alone; any thread may call them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from edge_app.i18n.language import N_
from edge_app.store.keys import KEY, NONCE, TAG
from edge_app.store.memory import wipe
from edge_app.store.records import StoreError, WrongKey

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
MIN_PASSPHRASE = 4  # characters
PURPOSE = b"dermedge store key"


def must_be_long(passphrase: str) -> None:
    if len(passphrase) < MIN_PASSPHRASE:
        raise StoreError("the passphrase needs at least four characters", code="passphrase")


def wrap(secret: bytearray, passphrase: str) -> dict:
    """The header of a store: how the passphrase gives its data key."""
    header = {"kdf": "argon2id", "cost": dict(ARGON2), "salt": os.urandom(SALTS[0]).hex()}
    try:
        key = _stretched(header, passphrase)
    except UnsupportedAlgorithm:
        header |= {"kdf": "scrypt", "cost": dict(SCRYPT)}
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


def _check(header: Any) -> None:
    """Refuse a header that is none, or whose key would take too much time or memory."""
    sound = isinstance(header, dict) and set(header) == {"kdf", "cost", "salt", "key"}
    ranges = RANGES.get(header["kdf"]) if sound and isinstance(header["kdf"], str) else None
    cost: Any = header["cost"] if ranges else None
    sound = ranges is not None and isinstance(cost, dict) and set(cost) == set(ranges) and all(
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
            function(salt=salt, length=KEY, **header["cost"]).derive_into(exact, key)  # type: ignore[arg-type]  # takes any buffer
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


def read(connection) -> dict:
    """The header of a store's file. Raises StoreError where it is damaged."""
    row = connection.execute("SELECT value FROM store WHERE name = 'header'").fetchone()
    return unpacked(row[0] if row else None)


def write(connection, header: dict) -> None:
    value = packed(header)
    connection.execute("INSERT OR REPLACE INTO store VALUES ('header', ?)", (value,))
