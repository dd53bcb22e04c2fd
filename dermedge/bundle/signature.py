"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest, which holds all other hashes.

The signature of a key that nobody trusts proves nothing: whoever changes a bundle can sign it
with a key of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from types import ModuleType

from dermedge import UserError

MAX_BYTES = 4096  # of the file `signature.json`
STATES = ("none", "not checked", "unknown key", "trusted")
INSTALL = "pip install 'dermedge[sign]'"
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class SignatureError(UserError, ValueError):
    """A key or a signature is not what it should be; the message says why in one line."""


class KeyFileError(SignatureError):
    """A file of keys cannot be used."""


@dataclass(frozen=True)
class Signature:
    """What a bundle's signature is worth here."""

    state: str = "none"  # one of STATES
    key: str = ""  # first 16 hex digits of the SHA-256 of the public key

    def __str__(self) -> str:
        return {
            "none": "not signed",
            "not checked": f"signed, which cannot be checked here: {INSTALL}",
            "unknown key": f"signed by an unknown key {self.key}: anybody can do that; compare it "
            "with its maker's, and give --trusted-key",
            "trusted": f"signed by the trusted key {self.key}",
        }[self.state]


def sign(text: bytes, private_key: bytes) -> bytes:
    """The content of `signature.json`. `private_key` is an unencrypted Ed25519 key in PEM.

    Raises KeyFileError.
    """
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_pem_private_key(private_key, password=None)
    # Besides ValueError and TypeError, kinds of its own for algorithms that it does not know.
    except Exception:
        raise KeyFileError("the signing key is no unencrypted PEM private key") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError("the signing key is not an Ed25519 key")
    public = key.public_key().public_bytes_raw().hex()
    return json.dumps({"public_key": public, "signature": key.sign(text).hex()}).encode()


def public_keys(pem: bytes) -> frozenset[bytes]:
    """The raw Ed25519 public keys of a file with one or more of them in PEM.

    Raises KeyFileError where there is none, or something else too.
    """
    serialization, ed25519 = _cryptography()
    blocks = [match.group(0) for match in _PEM.finditer(pem)]
    keys = set()
    for block in blocks:
        try:
            key = serialization.load_pem_public_key(block)
        except Exception:
            key = None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            break
        keys.add(key.public_bytes_raw())
    if not keys or len(keys) < len(set(blocks)):
        raise KeyFileError("the trusted key is no Ed25519 public key in PEM")
    return frozenset(keys)


def check(entry: bytes | None, text: bytes, trusted: frozenset[bytes] | None) -> Signature:
    """What a signature is worth.

    Parameters
    ----------
    entry : content of `signature.json`, None where there is none.
    text : what was signed.
    trusted : raw public keys. Given, one of them must have signed.

    Raises
    ------
    SignatureError
        As what follows "bundle X is refused:". It does not fit the text, or is of no trusted key.
    """
    if entry is None:
        if trusted is not None:
            raise SignatureError(
                "it is not signed, but a trusted key was given", code="bundle.not_signed"
            )
        return Signature()
    try:
        content = json.loads(entry)
        public = bytes.fromhex(content["public_key"])
        signature = bytes.fromhex(content["signature"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SignatureError("its signature is damaged", code="bundle.signature") from None
    if len(public) != 32 or len(signature) != 64:
        raise SignatureError("its signature is damaged", code="bundle.signature")
    fingerprint = hashlib.sha256(public).hexdigest()[:16]
    try:
        _, ed25519 = _cryptography()
    except KeyFileError:
        if trusted is not None:
            raise
        return Signature("not checked", fingerprint)
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except Exception:
        raise SignatureError(
            "its signature does not fit its manifest", code="bundle.signature"
        ) from None
    if trusted is None:
        return Signature("unknown key", fingerprint)
    if public not in trusted:
        raise SignatureError(
            "it is signed by another key than the trusted one: {key}",
            code="bundle.another_key",
            key=fingerprint,
        )
    return Signature("trusted", fingerprint)


def _cryptography() -> tuple[ModuleType, ModuleType]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise KeyFileError(
            "signatures cannot be checked here: {command}", code="bundle.sign", command=INSTALL
        ) from None
    return serialization, ed25519
