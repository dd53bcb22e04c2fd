"""`dermedge label`: confirm what the model doubts, and export what was confirmed."""

from __future__ import annotations

import argparse
import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge import UserError
from dermedge.bundle.bundle import DEFAULT
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, open_bundle, port
from dermedge.text import printable
from edge_app.folders import in_words
from edge_app.referral.commands import open_cases, say_damage

if TYPE_CHECKING:
    from edge_app.store.store import Store

ROLES = ("dermatologist", "nurse")  # as edge_app.store.labels has them
ACTIONS = {
    "ask": "open a page on this machine that asks about the pictures the model doubts",
    "people": "list people by their id, and who allowed training",
    "allow": "enter that the person NAME (an id) allowed the use of their pictures for training",
    "forbid": "take that back",
    "export": "write what was confirmed into the new folder NAME, for `dermedge train`",
}
OPTIONS = {
    "by": ("ask", "allow"),
    "role": ("ask",),
    "port": ("ask",),
    **dict.fromkeys(("bundle", "trusted_key", "min_release"), ("ask",)),
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    what = "; ".join(f"{name}: {words}" for name, words in ACTIONS.items())
    parser.add_argument("action", choices=tuple(ACTIONS), metavar="ACTION", help=what)
    parser.add_argument("name", nargs="?", metavar="NAME", help="what the action is about")
    bundle_arguments(parser)
    parser.add_argument(
        "--home", metavar="DIR", help=f"where the cases are kept (default: {in_words()})"
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="the passphrase of the cases; without it, it is asked for",
    )
    parser.add_argument("--by", metavar="NAME", help="for `ask` and `allow`: who you are")
    parser.add_argument("--role", choices=ROLES, help="for `ask`: what you are")
    parser.add_argument(
        "--port", type=port, default=0, help="of 127.0.0.1 (default: one that is free)"
    )


def _run(args: argparse.Namespace) -> int:
    if args.action in ("allow", "forbid", "export") and not args.name:
        raise UserError(
            "say what to {action}: dermedge label {action} NAME",
            code="label.name",
            action=args.action,
        )
    if args.action in ("ask", "people") and args.name:
        raise UserError(
            "`dermedge label {action}` takes no name: leave out {name}",
            code="label.name",
            action=args.action,
            name=args.name,
        )
    for option, actions in OPTIONS.items():
        if getattr(args, option) not in (None, 0, DEFAULT) and args.action not in actions:
            raise UserError(
                "`dermedge label {action}` takes no --{option}: leave it out",
                code="label.option",
                action=args.action,
                option=option.replace("_", "-"),
            )
    nameless = args.action in ("ask", "allow") and not (args.by or "").strip()
    if nameless or (args.action == "ask" and not args.role):
        raise UserError(
            "say who you are: --by NAME, for `ask` with --role {roles}",
            code="label.by",
            roles=" or ".join(ROLES),
        )
    from edge_app.store.basics import text
    from edge_app.store.labels import NAME

    # Else the store would refuse each answer, after all pictures were analysed.
    for fault in text(args.by or "", NAME):
        raise UserError("--by: {reason}", code="label.by", reason=fault)
    with closing(open_cases(args)) as store:
        return _DO[args.action](store, args)


def _ask(store: Store, args: argparse.Namespace) -> int:
    from socketserver import BaseRequestHandler

    from tqdm import tqdm

    from dermedge.analyzer import Analyzer
    from dermedge.tune import chosen, load_tuned
    from edge_app.labelling.queue import allowed, questions
    from edge_app.labelling.server import LabelServer, Sitting
    from edge_app.loopback import LoopbackServer
    from edge_app.store.damage import LeftOut, pass_over

    # A port that is taken would else be found so after all pictures were analysed.
    LoopbackServer(args.port, BaseRequestHandler).server_close()
    bundle = open_bundle(args)
    executions = load_tuned(bundle)
    with chosen(executions):
        analyzer = Analyzer(bundle, executions=executions)
    count = sum(1 for _ in allowed(store, pass_over))
    left = LeftOut()
    with tqdm(total=count, desc="analysing", unit="picture", disable=None, leave=False) as bar:
        waiting = questions(store, analyzer, lambda _number: bar.update(), left)
    status = say_damage(left)
    if not waiting:
        print(
            "there is nothing to ask: no picture without a label is of somebody who allowed "
            "training (`dermedge label allow`)"
        )
        return status
    server = LabelServer(Sitting(store, waiting, args.by, args.role, bundle.sha256), args.port)
    print(f"pictures: {len(waiting)}; open {server.address} on this machine (end with Ctrl+C)")
    print("What was answered stays when this ends; the next call goes on.", flush=True)
    try:
        server.wait()
    finally:
        server.close()
    return status


def _people(store: Store, _args: argparse.Namespace) -> int:
    from edge_app.store.clock import local_day
    from edge_app.store.damage import LeftOut, without_damage

    left = LeftOut()
    people = store.people(leave_out=left)
    if not people and not left.lines:
        print("nobody is kept here yet")
    for person in people:
        with without_damage(f"what person {person.id} allowed", left):
            found = store.labels.permission(person.id)
            said = (
                f"allowed {local_day(found.when)}, entered by {found.by}"
                if found
                else "not allowed"
            )
            print(printable(f"{person.id}  {person.name}: {said}"))
    return say_damage(left)


def _permit(store: Store, args: argparse.Namespace) -> int:
    from edge_app.store.records import StoreError

    try:
        if args.action == "allow":
            store.labels.allow(args.name, args.by)
        else:
            store.labels.forbid(args.name)
    except StoreError as error:
        if error.code != "gone":
            raise
        raise UserError(
            "there is no person {id}: `dermedge label people` lists their ids",
            code="label.person",
            id=args.name,
        ) from None
    return 0


def _export(store: Store, args: argparse.Namespace) -> int:
    from edge_app.labelling.export import export
    from edge_app.store.damage import LeftOut

    left = LeftOut()
    try:
        labelled, unlabelled = export(store, Path(args.name), left)
    finally:
        status = say_damage(left)
    print(
        f"{args.name}: {labelled} labelled pictures, {unlabelled} without a diagnosis. They are "
        "pictures of people, and not sealed: keep them so. "
        "Train by: dermedge train classifier --recipe classifier --data "
        f"{shlex.quote(f'csv={args.name}')}"
    )
    return status


_DO = {"ask": _ask, "people": _people, "allow": _permit, "forbid": _permit, "export": _export}

LABEL = Command(
    "confirm what the model doubts, for training: a page on this machine, sealed in the cases",
    _arguments,
    _run,
    extra="app",
)
