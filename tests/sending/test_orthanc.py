"""The whole way to a real archive: Debian's Orthanc with DICOMweb."""

from __future__ import annotations

import random
import subprocess

import pytest

from edge_app.referral.carriers import Later, Refused, connect
from edge_app.referral.outbox import Outbox
from edge_app.referral.sender import Sender
from sending.mail_cases import destination, queue, received, state
from sending.receivers import Orthanc, picture

A = "a" * 32


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    if missing := Orthanc.missing():
        pytest.skip(missing)
    made = Orthanc(tmp_path_factory.mktemp("orthanc"))
    yield made
    made.close()


@pytest.mark.parametrize("by", ["web", "dimse"])
def test_pictures_arrive_byte_for_byte_and_once(cases, orthanc, by):
    id = random.randbytes(16).hex()
    endpoint = getattr(orthanc, by)()
    assert "\n" not in connect(endpoint).check()
    queue(cases, destination(cases, endpoint), id=id, pictures=4)
    assert Sender(cases).run().received == 4
    held = orthanc.held()
    for number in range(4):
        item = picture(id, number)
        if by == "web":
            assert held[item.uid] == item.data
        assert item.data[-768:] == held[item.uid][-768:]
    before = len(held)
    link = connect(endpoint)
    for number in range(10):  # sent ten times, nothing new
        link.deliver(picture(id, 0), again=number % 2 == 0)
    link.close()
    assert len(orthanc.held()) == before
    assert state(cases, id) == "received"


@pytest.mark.parametrize("by", ["web", "dimse"])
def test_other_content_under_our_number_is_noticed(orthanc, by):
    """It answers success, and keeps what it had."""
    id = random.randbytes(16).hex()
    link = connect(getattr(orthanc, by)())
    link.deliver(picture(id, 0, salt="other"), again=False)
    with pytest.raises(Refused, match="other content under the same number"):
        link.deliver(picture(id, 0), again=False)
    link.close()


def test_an_archive_that_is_killed_and_comes_back_loses_nothing(cases, orthanc):
    id = random.randbytes(16).hex()
    queue(cases, destination(cases, orthanc.web()), id=id, pictures=6)
    outbox = Outbox(cases, lambda *_: 0.0)
    orthanc.kill()
    assert Sender(cases, outbox=outbox).run().put_off == 1
    orthanc.start()
    Sender(cases, outbox=outbox).run()
    assert state(cases, id) == "received"
    held = orthanc.held()
    assert all(held[picture(id, number).uid] == picture(id, number).data for number in range(6))


def test_an_archive_whose_disk_is_full_gets_it_when_there_is_room(cases, tmp_path):
    if missing := Orthanc.missing():
        pytest.skip(missing)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    made = None
    try:
        made = Orthanc(disk)
        ballast = disk / "ballast"
        free = 6 * 2**20 - sum(f.stat().st_size for f in disk.rglob("*") if f.is_file())
        ballast.write_bytes(bytes(free - 700_000))
        queue(cases, destination(cases, made.web()), pictures=6, side=300)  # 270 kB each
        outbox = Outbox(cases, lambda *_: 0.0)
        Sender(cases, outbox=outbox).run()
        assert len(received(cases)) < 6
        assert cases.mail.attempt(A).why or cases.mail.referral(A).why
        ballast.unlink()
        for _ in range(3):
            if cases.mail.referral(A).stopped:
                cases.mail.resume(A)
            Sender(cases, outbox=outbox).run()
        assert state(cases) == "received"
        held = made.held()
        assert all(held[picture(A, n, 300).uid] == picture(A, n, 300).data for n in range(6))
    finally:
        if made:
            made.close()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_nobody_there_is_told(orthanc):
    from edge_app.store.referrals import Endpoint
    from sending.receivers import free_port

    with pytest.raises(Later, match="nobody answers"):
        connect(Endpoint("dicomweb", f"http://127.0.0.1:{free_port()}/dicom-web")).check()
