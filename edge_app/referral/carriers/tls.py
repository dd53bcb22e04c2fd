"""Encryption on the wire, and which addresses need none."""

from __future__ import annotations

import os
import re
import socket
import ssl
import tempfile

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.referral.carriers.outcome import (
    CERTIFICATE,
    NO_ENCRYPTION,
    OWN_CERTIFICATE,
    Later,
)
from edge_app.store.referrals import Endpoint

WAIT = 2.0  # s, in which a receiver says what it has against a certificate
LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY = N_("the certificate or key of this device for {place} cannot be read: enter them again")
KEY_SEALED = N_(
    "the key of this device for {place} is sealed by a passphrase: enter one without, as written "
    "by openssl pkey -in KEY -out PLAIN"
)
KEY_OTHER = N_(
    "the key of this device for {place} is not that of its certificate: enter the two that belong "
    "together"
)
# How OpenSSL words it; an alert is what the other side says (RFC 8446, 6.2).
SIGNS = {
    CERTIFICATE: r"certificate verify failed: ([^(\"']{1,100})",
    OWN_CERTIFICATE: r"alert ((?!certificate required)[a-z ]*certificate[a-z ]*|unknown ca)",
    NO_ENCRYPTION: r"\] ([\w/ ]+)",
}
AUTHORITY = N_("the certificate that vouches for {place} cannot be read: enter it again")


def context(endpoint: Endpoint) -> ssl.SSLContext:
    """TLS 1.2 or newer; the receiver is who its certificate says, vouched for by the endpoint's
    own authorities where it has some, else by the system's. Raises UserError.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if endpoint.authorities:
            made.load_verify_locations(cadata=endpoint.authorities)
        else:
            made.load_default_certs()
    except (ssl.SSLError, ValueError, OSError):
        raise UserError(AUTHORITY, code="authority", place=endpoint.address) from None
    if endpoint.certificate:
        try:
            _load(made, endpoint)
        except (ssl.SSLError, ValueError, OSError) as error:
            words = KEY_OTHER if "KEY_VALUES_MISMATCH" in str(error) else KEY
            words = KEY_SEALED if "ENCRYPTED" in endpoint.certificate + endpoint.key else words
            raise UserError(words, code="key", place=endpoint.address) from None
    return made


def must_agree(made: ssl.SSLContext, host: str, port: int, place: str) -> None:
    """Raises Later where certificates or the encryption are why a connection did not come about."""
    try:
        with (
            socket.create_connection((host, port), WAIT) as plain,
            made.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.recv(1)  # by TLS 1.3 the other side says only now that it does not take ours
    except ssl.SSLError as error:
        for words, sign in SIGNS.items():
            if found := re.search(sign, str(error)):
                message = Message(words, place=place, fault=found[1].strip())
                raise Later(message, "certificate", down=True) from error
    except OSError:
        return  # nobody answers, or has nothing to say against it


def _load(made: ssl.SSLContext, endpoint: Endpoint) -> None:
    # OpenSSL reads a key from a file only; in memory where there is such a folder.
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    handle, path = tempfile.mkstemp(dir=folder)  # readable by its owner alone
    try:
        text = f"{endpoint.certificate}\n{endpoint.key}\n".encode()
        with os.fdopen(handle, "r+b") as file:
            file.write(text)
            file.flush()
            made.load_cert_chain(path, password="")
            file.seek(0)
            file.write(bytes(len(text)))
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.unlink(path)
