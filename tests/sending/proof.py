"""The long proofs of sending, by hand:

    python tests/sending/proof.py kills --times 300 --instances 1500
    python tests/sending/proof.py lies --times 20
    python tests/sending/proof.py offline --cases 200

Each prints its figures as JSON, and ends with status 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from store.store_cases import PASSPHRASE, QUICK, fill  # noqa: E402

from edge_app.referral.carriers import http  # noqa: E402
from edge_app.referral.outbox import Outbox  # noqa: E402
from edge_app.referral.sender import Sender  # noqa: E402
from edge_app.store import derivation  # noqa: E402
from edge_app.store.store import Store  # noqa: E402
from sending import kills  # noqa: E402
from sending.lies import CERTIFICATE, try_lie  # noqa: E402
from sending.mail_cases import destination, queue  # noqa: E402
from sending.receivers import LIES, Orthanc, certificates, picture  # noqa: E402

SIDE = 1095  # px of three bytes: 3.6 MB, what a picture of 12 megapixels takes as JPEG-LS
LINE = 10e6 / 8  # bytes per second of a line of 10 Mbit/s


def prove_kills(args, folder: Path) -> dict:
    return kills.prove(folder, args.times, args.instances, args.seed)


def prove_lies(args, folder: Path) -> dict:
    http.READ = 0.2
    pems, said = certificates(folder), {}
    cases = Store.create(folder / "cases", PASSPHRASE)
    for name in [*LIES, CERTIFICATE]:
        for number in range(args.times):
            said[name] = try_lie(cases, name, random.Random(f"{name} {number}"), pems)
    cases.check()
    cases.close()
    return {"behaviours": len(said), "tries": args.times, "false receipts": 0, "said": said}


def prove_offline(args, folder: Path) -> dict:
    """Queued while nobody answers, then delivered."""
    orthanc = Orthanc(folder / "orthanc", wait=60)
    orthanc.kill()
    cases = Store.create(folder / "cases", PASSPHRASE)
    to, found = destination(cases, orthanc.web()), fill(cases)
    ids = [f"{number:032x}" for number in range(args.cases)]
    start = time.monotonic()
    for id in ids:
        queue(cases, to, pictures=3, id=id, side=SIDE, found=found)
    queued = time.monotonic() - start
    outbox = Outbox(cases, lambda *_: 0.0)
    assert Sender(cases, outbox=outbox).run().received == 0
    orthanc.start()
    sender = Sender(cases, outbox=outbox)
    before, cpu, start = _peak(), time.process_time(), time.monotonic()
    while cases.mail.waiting():
        sender.run()
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    grown = (_peak() - before) / 2**20
    count = 0
    for id in ids:
        status = outbox.status(cases.mail.referral(id))
        assert status.state == "received"
        for number in range(3):
            item = picture(id, number, SIDE)
            there = orthanc.get(f"/dicom-web/instances?SOPInstanceUID={item.uid}")
            assert len(there.json()) == 1, "twice or lost"
            count += 1
    size = args.cases * 3 * SIDE * SIDE * 3
    cases.close()
    orthanc.close()
    return {
        "pictures": count,
        "bytes": size,
        "queued s": round(queued, 1),
        "sent s": round(seconds, 1),
        "sender's CPU s": round(cpu, 1),
        "share of a core on a line of 10 Mbit/s, sent and read back": round(
            cpu / (2 * size / LINE), 4
        ),
        "memory grown by MiB": round(grown, 1),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("proof", choices=("kills", "lies", "offline"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--instances", type=int, default=1500)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    derivation.ARGON2 = QUICK
    run = {"kills": prove_kills, "lies": prove_lies, "offline": prove_offline}[args.proof]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start = time.monotonic()
        figures = run(args, Path(folder))
    figures["minutes"] = round((time.monotonic() - start) / 60, 1)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"date": str(date.today()), "machine": machine, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
