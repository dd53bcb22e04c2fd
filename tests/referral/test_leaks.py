"""What must never leave, in no byte of what is sent pseudonymously."""

from __future__ import annotations

import base64
import getpass
import io
import json
import os
import re
import socket
import struct
import zlib
from dataclasses import replace

import cv2
import pytest
from analyses import analysis
from referrals import WHEN, drawn, picture, referral

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pypdf = pytest.importorskip("pypdf")
pytest.importorskip("fpdf", reason="needs the package fpdf2")
pytest.importorskip("kivy", reason="the fonts of the report come with Kivy")
from edge_app.documents.pdf import Shot, write_case  # noqa: E402
from edge_app.referral.form import Findings  # noqa: E402
from edge_app.referral.parcels import Options, build  # noqa: E402
from edge_app.referral.uids import pseudonym, tracking_uid  # noqa: E402
from edge_app.store.store import Capture, Lesion, Person  # noqa: E402

SENTINELS = {
    name: f"Zq{number:02d}{name.title().replace('_', '')}Xv"
    for number, name in enumerate(
        (
            "name", "family_name", "notes", "lesion_title", "lesion_notes", "capture_notes",
            "person_id", "lesion_id", "path", "file_name", "serial", "camera", "lens", "gps",
            "artist", "comment", "software", "copyright", "xmp", "signer",
        )
    )
}  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def laden() -> bytes:
    """A PNG with every kind of metadata, of a camera and of a place."""
    png = cv2.imencode(".png", cv2.cvtColor(drawn(1), cv2.COLOR_RGB2BGR))[1].tobytes()
    texts = b"".join(
        chunk(b"tEXt", f"{name}\0{SENTINELS[name]}".encode())
        for name in ("serial", "camera", "lens", "artist", "comment", "software", "copyright")
    )
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SENTINELS["xmp"].encode())
    place = SENTINELS["gps"].encode() + b"\0"
    exif = b"MM\0*" + struct.pack(">IHHHII", 8, 1, 0x010E, 2, len(place), 26) + b"\0" * 4 + place
    header = 8 + 25
    return png[:header] + texts + xmp + chunk(b"eXIf", exif) + png[header:]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A referral of a person whose record is full of what must stay."""
    folder = tmp_path_factory.mktemp("cases") / SENTINELS["path"]
    folder.mkdir()
    found = analysis((128, 96), image=str(folder / f"{SENTINELS['file_name']}.png"))
    found["versions"] = {**found["versions"], "signed_by": SENTINELS["signer"]}
    name = f"{SENTINELS['name']} {SENTINELS['family_name']}"
    person = Person(SENTINELS["person_id"], name, 1971, "female", 2, notes=SENTINELS["notes"])
    lesion = Lesion(
        SENTINELS["lesion_id"],
        person.id,
        SENTINELS["lesion_title"],
        notes=SENTINELS["lesion_notes"],
    )
    capture = Capture(
        "c", lesion.id, WHEN.isoformat(), found, (128, 96), notes=SENTINELS["capture_notes"]
    )
    path = folder / "report.pdf"
    write_case(path, Shot(capture, drawn(1)), person=person, lesion=lesion)
    pictures = tuple(
        picture(kind, seed, image=laden(), findings=Findings.of(found))
        for seed, kind in enumerate(("overview", "close_up", "dermoscopic"), 1)
    )
    case = referral(
        pictures=pictures,
        pseudonym=pseudonym(person.id, "clinic"),
        lesion=replace(referral().lesion, tracking_uid=tracking_uid(lesion.id)),
        report=path.read_bytes(),
    )
    return case, (person.name, person.notes)


def unfolded(parcel) -> list[bytes]:
    """The parcel's bytes, and what they hold in another form."""
    found = [parcel.data]
    pages = []
    if parcel.kind == "fhir":
        text = parcel.data.decode()
        attachments = [base64.b64decode(it) for it in re.findall(r'"data":"([^"]*)"', text)]
        found += [*attachments, json.dumps(json.loads(text), ensure_ascii=True).encode()]
        pages = [it for it in attachments if it.startswith(b"%PDF")]
    else:
        ds = pydicom.dcmread(io.BytesIO(parcel.data))
        found.append(str(ds).encode())
        if "EncapsulatedDocument" in ds:
            pages = [bytes(ds.EncapsulatedDocument)]
    for page in pages:
        reader = pypdf.PdfReader(io.BytesIO(page))
        found += [str(dict(reader.metadata or {})).encode(), page]
        for sheet in reader.pages:
            found += [sheet.extract_text().encode(), sheet.get_contents().get_data()]
            found += [image.data for image in sheet.images]
    return found


@pytest.mark.parametrize(
    "options", [Options(lossy=True), Options(dicom=False)], ids=["both", "fhir"]
)
def test_no_sentinel_is_in_any_byte(asked, options):
    case, private = asked
    parcels = build(case, replace(options, private=private))
    pieces = [piece for parcel in parcels for piece in unfolded(parcel)]
    words = [*SENTINELS.values(), socket.gethostname(), getpass.getuser(), os.path.expanduser("~")]
    words = [word for word in words if len(word) > 5]
    assert len(SENTINELS) == 20
    for word in words:
        for form in (word, word.upper(), word.lower()):
            for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
                needle = form.encode(encoding)
                assert not any(needle in piece for piece in pieces), (word, encoding)


def test_the_search_would_find_one(asked):
    """So that the test above proves something."""
    case, _ = asked
    told = replace(case, question=SENTINELS["serial"])
    for options in (Options(fhir=False), Options(dicom=False)):
        pieces = [piece for parcel in build(told, options) for piece in unfolded(parcel)]
        assert any(SENTINELS["serial"].encode() in piece for piece in pieces)
