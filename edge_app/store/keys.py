"""The keys of an open store: what they seal, and that they can be wiped."""

from __future__ import annotations

import hmac
import json
import os
import threading

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_app.i18n.language import N_
from edge_app.store.memory import wipe
from edge_app.store.records import StoreError

KEY, NONCE, TAG = 32, 12, 16  # bytes
CLOSED = N_("the store is closed")


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
    if part == "destination":  # which no export holds
        words = N_("a destination in the store is damaged: remove it, and enter it again")
        return StoreError(words, code="damaged")
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
