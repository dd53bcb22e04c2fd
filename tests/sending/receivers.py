"""Receivers on this computer: honest ones, and one that lies in fifteen ways."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from edge_app.referral.parcels import Parcel
from edge_app.store.referrals import Endpoint

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
BASE = "/dicom-web"


def number(*parts: object) -> str:
    """A DICOM UID of these parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def picture(referral: str, sequence: int, side: int = 16, salt: object = "") -> Parcel:
    """A small DICOM picture of its own pixels."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    uid = number("instance", referral, sequence)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DERMOSCOPIC, uid
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = "2.25.1"
    found = pydicom.Dataset()
    found.file_meta = meta
    found.SOPClassUID, found.SOPInstanceUID = DERMOSCOPIC, uid
    found.StudyInstanceUID, found.SeriesInstanceUID = number(referral), number("series", referral)
    found.PatientName, found.PatientID = "CODE", "CODE"
    found.StudyDate = found.StudyTime = found.AccessionNumber = found.StudyID = ""
    found.PatientBirthDate = found.PatientSex = found.ReferringPhysicianName = ""
    found.Modality, found.SeriesNumber, found.InstanceNumber = "DMS", 1, sequence + 1
    found.Rows = found.Columns = side
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, "RGB"
    found.PlanarConfiguration = found.PixelRepresentation = 0
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit = 7
    found.PixelData = random.Random(f"{uid}{salt}").randbytes(side * side * 3)
    found["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, found, enforce_file_format=True)
    return parcel(uid, "dicom", referral, sequence, file.getvalue())


def request(referral: str, sequence: int, salt: str = "") -> Parcel:
    """A FHIR transaction of a patient, a request and a task."""
    system = "urn:oid:2.25.1"

    def entry(kind: str, **values) -> dict:
        value = f"{referral}.{kind}"
        own = {"resourceType": kind, "identifier": [{"system": system, "value": value}]}
        return {
            "fullUrl": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, value)}",
            "resource": own | values,
            "request": {
                "method": "POST", "url": kind, "ifNoneExist": f"identifier={system}|{value}",
            },
        }  # fmt: skip

    patient = entry("Patient")
    asked = entry(
        "ServiceRequest", status="active", intent="order",
        subject={"reference": patient["fullUrl"]}, note=[{"text": f"melanoma? {salt}"}],
    )  # fmt: skip
    task = entry("Task", status="requested", intent="order", focus={"reference": asked["fullUrl"]})
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [patient, asked, task]}
    data = json.dumps(bundle).encode()
    uid = f"{referral[:24]}.{hashlib.sha256(data).hexdigest()[:16]}"
    return parcel(uid, "fhir", referral, sequence, data)


def parcel(uid: str, kind: str, referral: str, sequence: int, data: bytes) -> Parcel:
    return Parcel(uid, kind, referral, sequence, hashlib.sha256(data).hexdigest(), data)


# ---------------------------------------------------------------------------- on the web


class Site:
    """A server on a free port; `certificate` : a PEM file with its key, for TLS; or `context`."""

    def __init__(self, handler: type, certificate: str = "", context: ssl.SSLContext | None = None):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.site = self
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        self.secure = context is not None
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def address(self, path: str) -> str:
        return f"http{'s' if self.secure else ''}://localhost:{self.port}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else each answer waits 40 ms for the word that its header has come.
    disable_nagle_algorithm = True

    def log_message(self, *_args) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def say(self, status: int, body: bytes = b"", kind: str = "application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def stored(uids: list[str], failed: dict[str, int]) -> bytes:
    """The answer of STOW-RS."""
    said: dict = {}
    if uids:
        said["00081199"] = {
            "vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in uids],
        }  # fmt: skip
    if failed:
        said["00081198"] = {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [u]}, "00081197": {"vr": "US", "Value": [r]}}
                for u, r in failed.items()
            ],
        }
    return json.dumps(said).encode()


class DicomWebHandler(Handler):
    """An archive in memory: `site.held` by SOP Instance UID, `site.lie` : what it does instead."""

    def do_POST(self):
        site, data = self.server.site, self.body()
        site.posts += 1
        found = re.search(rb"\r\n\r\n(.*)\r\n--", data, re.S)
        content = found[1] if found else b""
        lie = site.lie(self, content) if site.lie else None
        if lie is not None:
            return
        self.keep(content)

    def keep(self, content: bytes, answer: bool = True) -> str:
        import pydicom

        uid = str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)
        site = self.server.site
        with site.lock:
            site.stores[uid] = site.stores.get(uid, 0) + (uid not in site.held)
            site.held.setdefault(uid, content)  # as Orthanc: what is there stays
        if answer:
            self.say(200, stored([uid], {}))
        return uid

    def do_GET(self):
        site, path = self.server.site, urlsplit(self.path).path
        if path == f"{BASE}/studies":
            return self.say(200, b"[]")
        if path.endswith("/instances"):
            return self.listed(path.split("/")[-2])
        content = site.held.get(path.rsplit("/", 1)[1])
        if content is None:
            return self.say(404)
        mark = uuid.uuid4().hex.encode()
        body = b"--" + mark + b"\r\nContent-Type: application/dicom\r\n\r\n" + content
        kind = f'multipart/related; type="application/dicom"; boundary={mark.decode()}'
        return self.say(200, body + b"\r\n--" + mark + b"--\r\n", kind)

    def listed(self, study: str) -> None:
        import pydicom

        found = []
        for content in list(self.server.site.held.values()):
            ds = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
            if str(ds.StudyInstanceUID) == study:
                found.append({
                    "0020000E": {"vr": "UI", "Value": [str(ds.SeriesInstanceUID)]},
                    "00080018": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]},
                    "00080016": {"vr": "UI", "Value": [str(ds.SOPClassUID)]},
                    "00080060": {"vr": "CS", "Value": [str(ds.Modality)]},
                })  # fmt: skip
        self.say(200, json.dumps(found).encode())


class DicomWebReceiver(Site):
    kind = "dicom"

    def __init__(
        self, certificate: str = "", lie=None, held: dict | None = None,
        context: ssl.SSLContext | None = None,
    ):  # fmt: skip
        self.held: dict[str, bytes] = {} if held is None else held
        self.stores: dict[str, int] = {}
        self.posts, self.lie, self.lock = 0, lie, threading.Lock()
        self.hung = threading.Event()  # set: what hangs ends
        super().__init__(DicomWebHandler, certificate, context)

    def endpoint(self, **values) -> Endpoint:
        return Endpoint("dicomweb", self.address(BASE), **values)

    def make(self, referral: str, sequence: int, salt: object = "") -> Parcel:
        return picture(referral, sequence, salt=salt)

    def holds(self, item: Parcel) -> bool:
        return self.held.get(item.uid) == item.data

    def count(self) -> int:
        return len(self.held)

    def plant(self, item: Parcel) -> None:
        """Other content under its number."""
        self.held[item.uid] = picture(item.referral, item.sequence, salt="other").data


class FhirHandler(Handler):
    def do_POST(self):
        site = self.server.site
        bundle, entries = json.loads(self.body()), []
        if site.lie and site.lie(self, b"") is not None:
            return
        with site.lock:
            ids = {}
            for entry in bundle["entry"]:
                own = entry["resource"]["identifier"][0]
                key = (entry["resource"]["resourceType"], own["system"], own["value"])
                there = site.by_identifier.get(key)
                ids[entry["fullUrl"]] = there or f"{key[0]}/{len(site.held) + len(ids) + 1}"
            for entry in bundle["entry"]:
                name = ids[entry["fullUrl"]]
                fresh = name not in site.held
                if fresh:
                    text = json.dumps(entry["resource"])
                    for urn, reference in ids.items():
                        text = text.replace(f'"{urn}"', f'"{reference}"')
                    resource = json.loads(text) | {"id": name.partition("/")[2]}
                    own = resource["identifier"][0]
                    site.held[name] = resource
                    site.by_identifier[name.partition("/")[0], own["system"], own["value"]] = name
                status = "201 Created" if fresh else "200 OK"
                said = {"status": status, "location": f"{name}/_history/1"}
                if not (fresh or site.locates):
                    del said["location"]
                entries.append({"response": said})
        said = {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}
        self.say(200, json.dumps(said).encode(), "application/fhir+json")

    def do_GET(self):
        path = urlsplit(self.path).path.removeprefix("/fhir/")
        if path == "metadata":
            said = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}
            return self.say(200, json.dumps(said).encode())
        if "/" not in path:
            asked = parse_qs(urlsplit(self.path).query)
            requests = asked.get("based-on", [""])[0].split(",")
            ids = asked.get("_id", [""])[0].split(",")
            numbers = asked.get("identifier", [""])[0].split(",")
            held = dict(self.server.site.held)
            found = [
                one
                for name, one in held.items()
                if name.startswith(f"{path}/")
                and (one["id"] in ids or _based_on(one) in requests or _is_of(one, numbers))
            ]
            for kind, name in (one.split(":") for one in asked.get("_include", ())):
                if kind == path and (self.server.site.includes or name != "based-on"):
                    element = re.sub("-(.)", lambda it: it[1].upper(), name)
                    found += [
                        held[one["reference"]]
                        for it in list(found)
                        for one in _listed(it.get(element))
                        if one.get("reference") in held
                    ]
            if "Task:focus" in asked.get("_revinclude", ()):
                asked_for = [f"{path}/{one['id']}" for one in found]
                found += [
                    one
                    for one in held.values()
                    if one.get("focus", {}).get("reference") in asked_for
                ]
            page = self.server.site.page
            following = [{"relation": "next", "url": "/elsewhere"}] if len(found) > page else []
            said = {"resourceType": "Bundle", "type": "searchset", "link": following,
                    "entry": [{"resource": one} for one in found[:page]]}  # fmt: skip
            return self.say(200, json.dumps(said).encode())
        found = self.server.site.held.get(path)
        return self.say(404) if found is None else self.say(200, json.dumps(found).encode())


def _listed(element: object) -> list[dict]:
    return element if isinstance(element, list) else [element] if element else []


def _is_of(resource: dict, numbers: list[str]) -> bool:
    own = resource.get("identifier") or []
    return any(f"{one['system']}|{one['value']}" in numbers for one in own)


def _based_on(resource: dict) -> str:
    return (resource.get("basedOn") or [{}])[0].get("reference", "none")


class FhirReceiver(Site):
    kind = "fhir"
    page = 200  # entries that it gives at once
    includes = True  # what is asked for along with them
    locates = True  # what was there before

    def __init__(self, certificate: str = "", lie=None):
        self.held: dict[str, dict] = {}
        self.by_identifier: dict[tuple, str] = {}
        self.lie, self.lock = lie, threading.Lock()
        super().__init__(FhirHandler, certificate)

    def endpoint(self, **values) -> Endpoint:
        return Endpoint("fhir", self.address("/fhir"), **values)

    def set_up_again(self) -> None:
        """All that it held is put in again, and gets other ids, up to those that it had."""
        others = {
            name: f"{name.partition('/')[0]}/{number}"
            for number, name in enumerate(reversed(self.held), 1)
        }
        text = json.dumps(self.held)
        held = json.loads(re.sub(r'"(\w+/\w+)"', lambda it: f'"{others[it[1]]}"', text))
        self.held = {name: one | {"id": name.partition("/")[2]} for name, one in held.items()}
        self.by_identifier = {key: others[it] for key, it in self.by_identifier.items()}

    def make(self, referral: str, sequence: int, salt: object = "") -> Parcel:
        return request(referral, sequence, str(salt))

    def holds(self, item: Parcel) -> bool:
        wanted = [entry["resource"] for entry in json.loads(item.data)["entry"]]
        notes = [one.get("note") for one in self.held.values()]
        return all(one.get("note") in notes for one in wanted) and self.count() >= len(wanted)

    def count(self) -> int:
        return len(self.held)

    def plant(self, item: Parcel) -> None:
        """Other content under its identifiers."""
        other = request(item.referral, item.sequence, "other")
        for entry in json.loads(other.data)["entry"]:
            own = entry["resource"]["identifier"][0]
            name = f"{entry['resource']['resourceType']}/{len(self.held) + 1}"
            self.held[name] = entry["resource"] | {"id": name.partition("/")[2]}
            self.by_identifier[name.partition("/")[0], own["system"], own["value"]] = name


# ---------------------------------------------------------------------------- DICOM's own, folders


class DimseReceiver:
    """An archive that speaks C-STORE and C-GET."""

    kind = "dicom"

    def __init__(self, context: ssl.SSLContext | None = None, get: bool = True, status: int = 0):
        from pynetdicom import AE, evt
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Get
        from pynetdicom.sop_class import Verification

        self.held: dict[str, bytes] = {}
        self.status = status
        entity = AE("ARCHIVE")
        entity.add_supported_context(Verification)
        entity.add_supported_context(DERMOSCOPIC, scu_role=True, scp_role=True)
        if get:
            entity.add_supported_context(Get)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_GET, self._get)]
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=context
        )
        self.port = self._server.socket.getsockname()[1]

    def _store(self, event) -> int:
        if not self.status:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.held.setdefault(uid, event.encoded_dataset())
        return self.status

    def _get(self, event):
        import pydicom

        content = self.held.get(str(event.identifier.SOPInstanceUID))
        yield 1 if content else 0
        if content:
            yield 0xFF00, pydicom.dcmread(io.BytesIO(content))

    def endpoint(self, **values) -> Endpoint:
        return Endpoint("dicom", f"localhost:{self.port}", called="ARCHIVE", **values)

    def make(self, referral: str, sequence: int, salt: object = "") -> Parcel:
        return picture(referral, sequence, salt=salt)

    def holds(self, item: Parcel) -> bool:
        from edge_app.referral.carriers.instances import same

        return item.uid in self.held and same(item.data, self.held[item.uid])

    def count(self) -> int:
        return len(self.held)

    def plant(self, item: Parcel) -> None:
        self.held[item.uid] = picture(item.referral, item.sequence, salt="other").data

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None


class FolderReceiver:
    kind = "dicom"
    passphrase = "four words that differ"

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def endpoint(self, **values) -> Endpoint:
        return Endpoint("folder", str(self.folder), password=self.passphrase, **values)

    def make(self, referral: str, sequence: int, salt: object = "") -> Parcel:
        return picture(referral, sequence, salt=salt)

    def _all(self) -> list[Parcel]:
        from edge_app.referral.carriers.folder import opened

        return [opened(p, p.read_bytes(), self.passphrase) for p in self.folder.rglob("*.dermp*")]

    def holds(self, item: Parcel) -> bool:
        return item in self._all()

    def count(self) -> int:
        return len(self._all())

    def plant(self, item: Parcel) -> None:
        path = self.folder / item.referral / f"{item.sequence:03}.dermparcel"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"other content")

    def close(self) -> None:
        shutil.rmtree(self.folder)


# ---------------------------------------------------------------------------- lies


def _reset(handler: Handler, after: int) -> None:
    """Cut the connection within an answer."""
    body = stored(["2.25.1"], {}) * 40
    text = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with contextlib.suppress(OSError):
        handler.wfile.write(text[:after])
        handler.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.connection.close()


class Liar:
    """What an archive does to one request instead of what it should; `chance` : of its choices.

    Each returns something where it has answered.
    """

    def __init__(self, chance: random.Random, other: DicomWebReceiver):
        self.chance, self.other = chance, other

    def cut_body(self, handler, content):
        handler.say(200, stored([_uid(content)], {})[: self.chance.randrange(1, 60)])
        return True

    def empty(self, handler, content):
        handler.say(200, b"{}")
        return True

    def half(self, handler, content):
        if handler.server.site.posts % 2:
            handler.keep(content, answer=False)
        handler.say(200, stored(["2.25.7"], {}))
        return True

    def accepted(self, handler, content):
        handler.say(202, stored([_uid(content)], {}))
        return True

    def some_stored(self, handler, content):
        handler.keep(content, answer=False)
        handler.say(400, stored(["2.25.7"], {_uid(content): 0xC122}))
        return True

    def conflict(self, handler, content):
        handler.say(409, stored([], {_uid(content): 0x0122}))
        return True

    def too_large(self, handler, content):
        handler.say(413)
        return True

    def busy(self, handler, content):
        handler.say(429, Retry_After="120")
        return True

    def fault(self, handler, content):
        handler.say(500, b"<html>oops")
        return True

    def unavailable(self, handler, content):
        handler.say(503)
        return True

    def hang(self, handler, content):
        handler.server.site.hung.wait(30)
        handler.close_connection = True
        return True

    def reset(self, handler, content):
        if self.chance.random() < 0.5:
            handler.keep(content, answer=False)
        _reset(handler, self.chance.randrange(0, 400))
        return True

    def old_content(self, handler, content):
        site = handler.server.site
        site.held[_uid(content)] = content[:-20] + bytes(20)
        handler.say(200, stored([_uid(content)], {}))
        return True

    def redirect(self, handler, content):
        handler.say(307, Location=self.other.address(f"{BASE}/studies"))
        return True


LIES = [name for name in vars(Liar) if not name.startswith("_")]  # and a wrong certificate


def _uid(content: bytes) -> str:
    import pydicom

    return str(pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)


# ---------------------------------------------------------------------------- certificates


def certificates(folder: Path) -> dict[str, Path]:
    """PEM files: an authority, a server and a client that it vouches for, and a stranger."""
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now, made, keys = datetime.now(timezone.utc), {}, {}

    def make(name: str, issuer: str, ca: bool) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        keys[name] = key
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(by)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        )  # fmt: skip
        pem = builder.sign(keys[issuer], hashes.SHA256()).public_bytes(
            serialization.Encoding.PEM
        ) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        made[name] = folder / f"{name}.pem"
        made[name].write_bytes(pem)

    make("authority", "authority", True)
    make("server", "authority", False)
    make("client", "authority", False)
    make("stranger", "stranger", True)
    return made


def split_pem(path: Path) -> tuple[str, str]:
    """Certificate and key."""
    text = path.read_text()
    at = text.index("-----BEGIN PRIVATE")
    return text[:at], text[at:]


# ---------------------------------------------------------------------------- Orthanc


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Orthanc:
    """Debian's Orthanc with DICOMweb, as a process of its own on this computer."""

    PLUGINS = "/usr/share/orthanc/plugins"

    @classmethod
    def missing(cls) -> str:
        """What to install; empty where all is there."""
        lacks = [] if shutil.which("Orthanc") else ["orthanc"]
        if not list(Path(cls.PLUGINS).glob("*DicomWeb*")):
            lacks.append("orthanc-dicomweb")
        return f"Debian packages are not installed: {' '.join(lacks)}" if lacks else ""

    def __init__(self, folder: Path, wait: float = 20.0):
        self.folder, self.wait = folder, wait
        self.http, self.dicom = free_port(), free_port()
        plugin = next(Path(self.PLUGINS).glob("*DicomWeb*"))
        settings = {
            "Name": "dermedge test", "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"), "StorageCompression": False,
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "Plugins": [str(plugin)], "DicomWeb": {"Enable": True, "Root": BASE + "/"},
            "DicomAlwaysAllowEcho": True, "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowGet": True, "DicomCheckCalledAet": False,
            "UnknownSopClassAccepted": True, "SynchronousCMove": True,
        }  # fmt: skip
        (folder / "storage").mkdir(parents=True, exist_ok=True)
        self.settings = folder / "orthanc.json"
        self.settings.write_text(json.dumps(settings))
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            ["Orthanc", str(self.settings)], stdout=log, stderr=log, cwd=self.folder
        )
        end = time.monotonic() + self.wait
        while time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.http), 0.2),
            ):
                return
            if self.process.poll() is not None:
                break
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def get(self, path: str):
        import requests

        return requests.get(f"http://127.0.0.1:{self.http}{path}", timeout=30)

    def held(self) -> dict[str, bytes]:
        """Each file that it has, by SOP Instance UID; a UID twice is an error."""
        found: dict[str, bytes] = {}
        for id in self.get("/instances").json():
            data = self.get(f"/instances/{id}/file").content
            uid = _uid(data)
            assert uid not in found, "twice"
            found[uid] = data
        return found

    def web(self) -> Endpoint:
        return Endpoint("dicomweb", f"http://127.0.0.1:{self.http}{BASE}")

    def dimse(self) -> Endpoint:
        return Endpoint("dicom", f"127.0.0.1:{self.dicom}", called="ORTHANC")

    def close(self) -> None:
        self.kill()
