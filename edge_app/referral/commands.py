"""`dermedge send`: what waits for a dermatologist, who takes it, and what came back."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge import UserError
from dermedge.cli import Command, ask_secret, one_line
from dermedge.files import make_private, names_in, read_text, write_atomic
from dermedge.text import printable
from edge_app.folders import CASES, data_folder, in_words

if TYPE_CHECKING:
    from edge_app.referral.collector import Collected
    from edge_app.referral.outbox import Status
    from edge_app.referral.parcels import Parcel
    from edge_app.store.damage import LeftOut
    from edge_app.store.referrals import Destination, Endpoint, StoredParcel
    from edge_app.store.store import Store

ACTIONS = {
    "check": "ask every destination whether it is there, sending nothing of anybody",
    "list": "what waits, was received and was answered, and why something waits",
    "answers": "ask for answers now, print what is new",
    "export": "write the parcels of --referral as plain files into DIR, for viewers and validators",
    "again": "send --referral again that was stopped, to --to where that is given",
    "add": "add a destination by its name and the addresses that follow",
    "remove": "remove a destination by its name",
    "open": "open the sealed files of a stick: FROM and a new or empty folder INTO",
}
NAMELESS = ("check", "list", "answers", "again")  # those that would ignore one
ADDRESS = (
    *("dicomweb", "dicom", "fhir", "folder", "called", "calling"),
    *("ca", "certificate", "key", "user", "token"),
)
BUSY = "another dermedge is sending these cases now: nothing was done"
OPTIONS = {
    "export": ("referral",),
    "again": ("referral", "to"),
    "add": ADDRESS,
    "--systemd": ("folder",),
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = "; ".join(f"{name}: {words}" for name, words in ACTIONS.items())
    parser.add_argument("action", nargs="?", choices=tuple(ACTIONS), metavar="ACTION", help=what)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what the action is about")
    runs = parser.add_mutually_exclusive_group()
    runs.add_argument("--once", action="store_true", help="send all that is due, end")
    runs.add_argument(
        "--watch", action="store_true", help="send what is due and ask for answers, until stopped"
    )
    runs.add_argument(
        "--systemd",
        action="store_true",
        help="print a systemd unit that sends beside a kiosk, with the other options given, end",
    )
    parser.add_argument(
        "--home", metavar="DIR", help=f"where the cases are kept (default: {in_words()})"
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="the passphrase of the cases; without it, it is asked for",
    )
    parser.add_argument("--referral", metavar="ID", help="as `list` shows it, or its first letters")
    parser.add_argument("--to", metavar="NAME", help="for `again`: another destination")
    add = parser.add_argument_group("a destination, for `add`")
    add.add_argument("--dicomweb", metavar="URL", help="pictures go to this DICOMweb server")
    add.add_argument("--dicom", metavar="HOST:PORT", help="pictures go to this DICOM node, by TLS")
    add.add_argument("--fhir", metavar="URL", help="requests go to this FHIR R4 server")
    add.add_argument(
        "--folder",
        metavar="DIR",
        help="all goes into this folder, sealed; with --systemd: the unit may write there",
    )
    add.add_argument("--called", metavar="TITLE", default="", help="AE title of the node")
    add.add_argument("--calling", metavar="TITLE", default="", help="AE title of this device")
    add.add_argument("--ca", metavar="FILE", help="PEM: certificates that vouch for the receiver")
    add.add_argument("--certificate", metavar="FILE", help="PEM: certificate of this device")
    add.add_argument("--key", metavar="FILE", help="PEM: key of that certificate")
    add.add_argument("--user", metavar="NAME", default="", help="its password is asked for")
    add.add_argument("--token", action="store_true", help="a bearer token is asked for")


def _run(args: argparse.Namespace) -> int:
    _refuse_unused(args)
    if args.systemd:
        return _print_unit(args)
    if args.action == "open":
        return _open_stick(args)
    chosen = [args.action, args.once, args.watch]
    if sum(map(bool, chosen)) != 1:
        raise UserError(
            "say what to do: one of {actions}, --once or --watch",
            code="send-action",
            actions=", ".join(ACTIONS),
        )
    if args.names and args.action in NAMELESS:
        raise UserError(
            "`dermedge send {action}` takes no name: leave out {names}",
            code="send-names",
            action=args.action,
            names=" ".join(args.names),
        )
    with closing(open_cases(args)) as store:
        if args.watch:
            return _watch(store)
        if args.once:
            return _once(store)
        return _DO[args.action](store, args)


def _refuse_unused(args: argparse.Namespace) -> None:
    """UserError where an option would do nothing: `--once --referral ID` sends all that is due."""
    runs = [f"--{name}" for name in ("once", "watch", "systemd") if getattr(args, name)]
    action = args.action or (runs[0] if runs else "")
    unused = [name for name in ("referral", "to", *ADDRESS) if getattr(args, name)]
    unused = [name for name in unused if name not in OPTIONS.get(action, ())]
    if args.systemd and args.passphrase_file:
        unused.append("passphrase-file")
    here = ""
    if action == "add" and not unused and (unused := _without_use(args)):
        beside = unused[0] == "user" and args.token
        here = " beside --token" if beside else " for these addresses"
        here = " without --certificate" if unused[0] == "key" else here
    if action and unused:
        raise UserError(
            "`dermedge send {action}` takes no --{option}{here}: leave it out",
            code="send-option",
            here=here,
            action=action,
            option=unused[0],
        )


def _without_use(args: argparse.Namespace) -> list[str]:
    """What of a destination's options would be dropped: a password or key that nobody is shown."""
    web = args.dicomweb or args.fhir
    useful = {
        "called": args.dicom,
        "calling": args.dicom,
        "user": web and not args.token,
        "token": web,
        "ca": web or args.dicom,
        "certificate": web or args.dicom,
        "key": args.certificate,
    }
    some = args.folder or args.dicom or web  # without an address, that is said
    return [name for name, use in useful.items() if some and getattr(args, name) and not use]


def open_cases(args: argparse.Namespace) -> Store:
    """The store that --home and --passphrase-file name; UserError where there is none."""
    from edge_app.store.store import Store

    path = Path(args.home or data_folder()) / CASES
    if not path.exists():
        raise UserError(
            "there are no cases in {folder}: start the app once, or say --home",
            code="no-cases",
            folder=path.parent,
        )
    return Store.open(path, _passphrase(args, "Passphrase of the cases: "))


def say_damage(left: LeftOut) -> int:
    """Name what was left out; the command's exit status."""
    for line in left.lines:
        print(f"dermedge: {line}", file=sys.stderr, flush=True)
    return 1 if left.lines else 0


def _passphrase(args: argparse.Namespace, words: str) -> str:
    path = args.passphrase_file
    passphrase = read_text(path).rstrip("\r\n") if path else ask_secret(words)
    if not passphrase:
        raise UserError(
            "there is no passphrase in {path}" if path else "no passphrase was typed",
            code="passphrase",
            path=path,
        )
    return passphrase


# ---------------------------------------------------------------------------- sending


def _once(store: Store) -> int:
    from edge_app.referral.sender import Sender

    report = Sender(store).run()
    if report.busy:
        raise UserError(BUSY, code="send-busy")
    _say_round(report)
    return 1 if say_damage(report.damaged) or report.put_off or report.stopped else 0


def _say_round(report) -> None:
    if report.received or report.put_off or report.stopped:
        print(
            f"{report.received} parcels received, {report.put_off} referrals put off, "
            f"{report.stopped} stopped: see `dermedge send list`",
            flush=True,
        )


def _watch(store: Store) -> int:
    from edge_app.referral.background import LOOK, POLL
    from edge_app.referral.collector import Collector
    from edge_app.referral.sender import Sender
    from edge_app.store.records import StoreError
    from edge_app.unforeseen import Lasting

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sender, collector, left = Sender(store, stop), Collector(store, stop), 0.0
    known: list[str] = []
    faults: dict[str, list[str]] = {"damaged": [], "send": [], "ask": []}
    lasting = Lasting()
    while not stop.is_set():
        deed = "send"
        try:
            report = sender.run()
            _say_round(report)
            faults |= {"damaged": [str(line) for line in report.damaged.lines], deed: []}
            if left <= 0:
                deed, left = "ask", POLL
                known = _say_answers(collector.run(), known)
                faults[deed] = []
        except StoreError as error:  # another process writes; a full disk may have room later
            faults[deed] = [str(error)]
        lasting.say([line for some in faults.values() for line in some])
        stop.wait(LOOK)
        left -= LOOK
    return 0


def _say_answers(found: Collected, known: Sequence[str]) -> list[str]:
    """What came, and once what is wrong, however often it is asked; `known` : what was before."""
    faults = [str(error) for error in (*found.refused, *found.failed)]
    for fault in dict.fromkeys(faults):
        if fault not in known:
            print(f"dermedge: {fault}", file=sys.stderr, flush=True)
    if found.new:
        print(f"{len(found.new)} answers, {len(found.refused)} refused", flush=True)
    return faults


def _check(store: Store, _args: argparse.Namespace) -> int:
    from edge_app.referral import carriers
    from edge_app.store.damage import LeftOut

    faults, left = 0, LeftOut()
    destinations = store.mail.destinations(left)
    if not destinations:
        print("there is no destination yet: `dermedge send add`")
    for destination in destinations:
        for endpoint in dict.fromkeys(filter(None, (destination.dicom, destination.fhir))):
            try:
                with closing(carriers.connect(endpoint)) as link:
                    print(f"{destination.name:20} ok     {link.check()}", flush=True)
            except UserError as error:
                faults += 1
                print(f"{destination.name:20} FAULT  {error}", flush=True)
    return 1 if say_damage(left) or faults else 0


def _list(store: Store, _args: argparse.Namespace) -> int:
    from edge_app.referral.outbox import STATES, Outbox
    from edge_app.referral.timeline import day_of, standing_of
    from edge_app.store.clock import local_minute
    from edge_app.store.damage import LeftOut

    left = LeftOut()
    found = Outbox(store).all(left)
    if not found and not left.lines:
        print("nothing was sent yet")
    for status in found:
        referral = status.referral
        receiver = printable(referral.receiver)  # of an imported file, too
        print(
            f"{referral.id[:8]}  {local_minute(referral.created)}  {receiver:20} "
            f"{STATES[status.state]}, {status.received} of {len(status.parcels)} parcels received"
        )
        # Of what was received as a whole, nothing is to be done.
        why = referral.why or status.attempt.why
        if why and status.received < len(status.parcels):
            print(f"          {why}")
        for answer in status.answers:
            author = printable(answer.author) or "no name"
            day = day_of(answer) or "date not known"
            print(f"          answer of {author}, {day}")
            if remark := standing_of(answer, status.answers):
                print(f"            {remark}")
    return say_damage(left)


def _answers(store: Store, _args: argparse.Namespace) -> int:
    from edge_app.referral.alone import alone
    from edge_app.referral.collector import Collector

    with alone(store.path) as may:
        if not may:
            raise UserError(BUSY, code="send-busy")
        found = Collector(store).run()
    for answer in found.new:
        better = ", asks for a better picture" if answer.wants_better_picture else ""
        back = ", takes its answer back" if answer.taken_back else ""
        print(f"{answer.referral[:8]}  from {answer.author or 'no name'}{better}{back}")
    for error in (*found.refused, *found.failed):
        print(f"dermedge: {error}", file=sys.stderr)
    print(f"{len(found.new)} new, {len(found.refused)} refused")
    return 1 if found.failed else 0


def _export(store: Store, args: argparse.Namespace) -> int:
    """Plain files: for who looks after the receiver's side."""
    from edge_app.referral.outbox import ANSWERED, DONE
    from edge_app.store.damage import LeftOut, row, without_damage

    (folder,) = _needed(args, "DIR")
    status = _wanted(store, args)
    target = Path(folder) / status.referral.id
    if status.state in (DONE, ANSWERED):
        raise UserError(
            "all of this referral was received, its bytes are not kept here", code="send-exported"
        )
    left, data = LeftOut(), []
    for one in store.mail.parcels(status.referral.id, left):
        with without_damage(row("parcel", one.id, "referral", one.referral), left):
            data.append((one, store.mail.payload(one)))
    with store.act("export", status.referral.id):
        try:
            target.mkdir(parents=True)
        except FileExistsError:
            raise UserError(
                "{path} is there already: delete it, or name another folder",
                code="exists",
                path=target,
            ) from None
        target.chmod(0o700)
        for parcel, content in data:
            write_atomic(target / _plain_name(parcel), content, private=True)
    print(f"{len(data)} files in {target}, not encrypted: delete them when you are done")
    return say_damage(left)


def _plain_name(parcel: Parcel | StoredParcel) -> str:
    return f"{parcel.sequence:03}.{'dcm' if parcel.kind == 'dicom' else 'json'}"


def _again(store: Store, args: argparse.Namespace) -> int:
    from edge_app.referral.outbox import ANSWERED, DONE

    status = _wanted(store, args)
    if status.state in (DONE, ANSWERED):
        raise UserError(
            "all of this referral was received: there is nothing to send again, make a new one",
            code="send-again",
        )
    target = _destination(store, args.to) if args.to else None
    to = target.id if target is not None else ""
    old = status.referral
    store.mail.resume(old.id, to)
    under = ""
    if target and to != old.destination and not old.form.get("identifiers"):
        maker = printable(old.receiver)  # of an imported file, too
        under = f" to {target.name}, under the code of the person that was made for {maker}: "
        under += "what that one gets of this person later has another"
    print(f"it is sent again{under}")
    return 0


def _wanted(store: Store, args: argparse.Namespace) -> Status:
    from edge_app.referral.outbox import Outbox
    from edge_app.store.damage import LeftOut

    left = LeftOut()
    if not args.referral:
        raise UserError(
            "say --referral and the number of one, as `dermedge send list` shows it",
            code="send-referral",
        )
    known = store.mail.referrals(leave_out=left)
    found = [one for one in known if one.id.startswith(args.referral)]
    status = Outbox(store).status(found[0], left) if len(found) == 1 else None
    say_damage(left)
    if status is None:
        raise UserError(
            "{count} referrals begin with {id}: give more of the number"
            if found
            else "there is no referral {id}: `dermedge send list` shows their numbers",
            code="send-referral",
            id=args.referral,
            count=len(found),
        )
    return status


def _needed(args: argparse.Namespace, *names: str) -> list[str]:
    if len(args.names) != len(names):
        raise UserError(
            "`dermedge send {action}` needs {names}",
            code="send-names",
            action=args.action,
            names=" and ".join(names),
        )
    return args.names


# ---------------------------------------------------------------------------- destinations


def _add(store: Store, args: argparse.Namespace) -> int:
    from edge_app.referral import carriers
    from edge_app.store.damage import LeftOut
    from edge_app.store.referrals import Destination, Endpoint

    (name,) = _needed(args, "NAME")
    left = LeftOut()
    if any(one.name == name for one in store.mail.destinations(left)):
        raise UserError("there is a destination {name} already", code="send-name", name=name)
    if sum(map(bool, (args.dicomweb, args.dicom, args.folder))) > 1:
        raise UserError(
            "pictures go one way: --dicomweb, --dicom or --folder", code="send-two-ways"
        )
    password = ask_secret(f"Password of {args.user}: ") if args.user else ""
    dicom = None
    if args.folder:  # its passphrase is for no server, nor is a server's password for it
        passphrase = ask_secret("Passphrase that opens the files, agreed on with the receiver: ")
        dicom = Endpoint("folder", str(Path(args.folder).absolute()), password=passphrase)
    token = ask_secret("Token: ") if args.token else ""
    for carrier in ("dicomweb", "dicom"):
        if address := getattr(args, carrier):
            dicom = _endpoint(args, carrier, address, password, token)
    fhir = _endpoint(args, "fhir", args.fhir, password, token) if args.fhir else None
    if args.folder and not args.fhir:
        fhir = dicom  # a folder takes both
    for endpoint in filter(None, (dicom, fhir)):
        carriers.connect(endpoint).close()  # says where an address must not be used
    store.mail.add_destination(Destination("", name, dicom, fhir))
    print(f"{name} was added: try `dermedge send check`")
    return say_damage(left)


def _endpoint(
    args: argparse.Namespace, carrier: str, address: str, password: str, token: str
) -> Endpoint:
    from edge_app.store.referrals import Endpoint

    return Endpoint(
        carrier, address, args.called, args.calling, args.user, password, token,
        _pem(args.ca), _pem(args.certificate), _pem(args.key),
    )  # fmt: skip


def _pem(path: str | None) -> str:
    from edge_app.browser import pem

    if not path:
        return ""
    text = pem(Path(path).read_bytes())
    if not text:
        raise UserError("{path} cannot be read as PEM", code="pem", path=path)
    return text


def _remove(store: Store, args: argparse.Namespace) -> int:
    (name,) = _needed(args, "NAME")
    # A damaged one has no name any more.
    id = name if re.fullmatch("[0-9a-f]{32}", name) else _destination(store, name).id
    store.mail.delete_destination(id)
    print(f"{name} was removed: no more answers are fetched from it until it is added again")
    return 0


def _destination(store: Store, name: str) -> Destination:
    from edge_app.store.damage import LeftOut

    left = LeftOut()
    found = [one for one in store.mail.destinations(left) if name in (one.name, one.id)]
    if len(found) == 1:
        return found[0]
    say_damage(left)
    if found:  # the app adds a second one of a name, as for a new address
        doors = [(one.id, it.address) for one in found if (it := one.dicom or one.fhir)]
        raise UserError(
            "several destinations are called {name}, say which by its number: {numbers}",
            code="send-name",
            name=name,
            numbers=", ".join(f"{id} ({address})" for id, address in doors),
        )
    raise UserError("there is no destination {name}", code="send-name", name=name)


# ---------------------------------------------------------------------------- the receiver's side


def _open_stick(args: argparse.Namespace) -> int:
    from edge_app.referral.carriers.folder import ENDING, Known, opened
    from edge_app.store.keys import Keys

    source, target = map(Path, _needed(args, "FROM", "INTO"))
    os.scandir(source).close()  # says what is wrong with it; `rglob` finds nothing there
    # A Mac puts one that begins with "._" beside each file on a stick.
    files = sorted(it for it in source.rglob(f"*{ENDING}") if not it.name.startswith("._"))
    if not files:
        raise UserError("there are no sealed files in {folder}", code="send-none", folder=source)
    if target.exists() and (not target.is_dir() or names_in(target)):
        raise UserError(
            "{path} is there already: name a new or empty folder", code="exists", path=target
        )
    passphrase = _passphrase(args, "Passphrase that was agreed on: ")
    count = 0
    faults: list[UserError | OSError] = []
    known: Known = {}
    for path in files:
        try:
            data = path.read_bytes()
        except OSError as error:  # the rest of the stick may be read
            faults.append(error)
            continue
        try:
            parcel = opened(path, data, passphrase, known)
            # Folders may have been renamed on the way: what is sealed says whose a file is.
            plain = target / parcel.referral / _plain_name(parcel)
            if plain.exists():
                if plain.read_bytes() == parcel.data:
                    continue  # a copy
                raise UserError(
                    "{path} is left out: {plain}, opened before, is another file of this number",
                    code="send-other",
                    path=path,
                    plain=plain,
                )
        except UserError as error:
            faults.append(error)
            continue
        make_private(plain.parent)
        write_atomic(plain, parcel.data, private=True)
        count += 1
    for keys in known.values():
        if isinstance(keys, Keys):
            keys.wipe()
    if faults and not count:
        raise faults[0]
    for fault in faults:
        print(f"dermedge: {one_line(fault)}", file=sys.stderr)
    print(f"{count} files in {target}, not encrypted")
    return 1 if faults else 0


def _print_unit(args: argparse.Namespace) -> int:
    from edge_app.referral.service import unit

    if args.action or args.names:
        raise UserError("--systemd takes no action", code="send-action")
    home = {"--home": str(Path(args.home).absolute())} if args.home else {}
    stick = str(Path(args.folder).absolute()) if args.folder else ""
    print(unit(home, stick), end="")
    return 0


_DO = {
    "check": _check,
    "list": _list,
    "answers": _answers,
    "export": _export,
    "again": _again,
    "add": _add,
    "remove": _remove,
}

SEND = Command("send cases to a dermatologist, and fetch the answers", _arguments, _run, "send")
