"""The systemd unit that starts a kiosk at boot."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from dermedge import UserError
from dermedge.bundle.bundle import shipped

_WRITES = ("--home", "--captures")  # options that name a folder which the kiosk writes to
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # a service has its own
# What --systemd leaves out: it says itself what is done, and these are runs of another kind.
_NO_SERVICE = ("screenshot", "soak", "measure")

_UNIT = """\
# dermedge app --systemd > /etc/systemd/system/dermedge.service
# useradd --system --groups video,render,input dermedge
{made}# systemctl enable --now dermedge
# What runs fastest is measured at the first start, for a minute at most. This measures all, by the
# service's own user, and is used from the next start on:
# {own} {tune}
[Unit]
Description=dermedge kiosk
After=systemd-udev-settle.service
StartLimitIntervalSec=0

[Service]
User=dermedge
SupplementaryGroups=video render input
Environment=SDL_VIDEODRIVER={display}
Environment=HOME=%S/dermedge
Environment=XDG_DATA_HOME=%S
Environment=XDG_CACHE_HOME=%C/dermedge
Environment=XDG_CONFIG_HOME=%S/dermedge/config
Environment=XDG_STATE_HOME=%S/dermedge/state
StateDirectory=dermedge
StateDirectoryMode=0700
CacheDirectory=dermedge
CacheDirectoryMode=0700
UMask=0077
ExecStart={command}
Restart=always
RestartSec=3
NoNewPrivileges=yes
PrivateTmp={private}
ProtectSystem=strict
ProtectHome=read-only
{writable}RestrictAddressFamilies=AF_UNIX AF_NETLINK

[Install]
WantedBy=multi-user.target
"""


def unit(options: Mapping[str, str], display: str = "kmsdrm") -> str:
    """A systemd unit that starts the kiosk at boot.

    Parameters
    ----------
    options : what follows `dermedge app --kiosk`, by name; "" where an option takes no value.
        Paths are absolute.

    Raises
    ------
    UserError : a value that no unit can hold, or a path that a service does not see.
    """
    program = [sys.executable, "-m", "dermedge.cli"]
    command = service_command([*program, "app", "--kiosk"], options)
    folders = [options[name] for name in _WRITES if options.get(name)]
    writable = "".join(f"ReadWritePaths={_quoted(folder)}\n" for folder in folders)
    # As `Environment` below has them: for the choice, and the newest release that was opened.
    own = "sudo -u dermedge env XDG_CACHE_HOME=/var/cache/dermedge"
    own += " XDG_STATE_HOME=/var/lib/dermedge/state"
    bundle = [
        word
        for name in ("--bundle", "--trusted-key", "--min-release")
        if name in options
        for word in (name, options[name])
    ]
    tune = shlex.join([*program, "tune", *bundle])
    made = "".join(
        f"# {shlex.join(['install', '-d', '-o', 'dermedge', '-m', '0700', folder])}\n"
        for folder in folders
    )
    return _UNIT.format(
        made=made,
        own=own,
        tune=tune,
        display=display,
        command=command,
        # A Jetson's camera daemon is reached by a socket there.
        private="no" if "nvargus" in options.get("--source", "") else "yes",
        writable=writable,
    )


def service_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, str]:
    """The options of a kiosk that runs as a service: every one given, by the parser's own list.

    Paths become absolute: a service starts elsewhere. A switch has the value "".

    Parameters
    ----------
    parser : of `dermedge app`. args : what was given to it.

    Raises
    ------
    UserError : an option that a service has no use for.
    """
    options = {"--bundle": args.bundle, "--source": args.source}
    for action in parser._actions:  # argparse has no public list of them
        value = getattr(args, action.dest, None)
        if action.dest == "systemd" or value is None or value == action.default:
            continue
        name = action.option_strings[-1]
        if action.dest in _NO_SERVICE or "for --screenshot alone" in (action.help or ""):
            raise UserError(
                "{option} is of no use to a service: leave it out of --systemd",
                code="systemd-option",
                option=name,
            )
        options[name] = "" if action.nargs == 0 else str(value)
    kinds = {action.option_strings[-1]: str(action.metavar) for action in parser._actions}
    return {name: _placed(value, kinds[name]) for name, value in options.items()}


def _placed(value: str, kind: str) -> str:
    """A path as an absolute one; names, numbers and pipelines as they are."""
    named = kind in ("FILE", "DIR") and value not in shipped()
    if named or (kind == "SPEC" and Path(value).exists()):
        return os.path.abspath(value)
    return value


def service_command(program: list[str], options: Mapping[str, str]) -> str:
    """The line that starts a program, each word quoted; raises UserError as `unit` does."""
    start = list(program)
    for name, value in options.items():
        start += [name, value] if value else [name]
    for word in start:
        if not word.isprintable():
            raise UserError(
                "a unit cannot hold {word}: it has a line break or another character that cannot "
                "be printed",
                code="systemd-character",
                word=repr(word),
            )
        if word in options.values():
            must_be_seen(word)
    # The program's own name is not searched for variables.
    return " ".join([_quoted(start[0]), *(_quoted(w).replace("$", "$$") for w in start[1:])])


def must_be_seen(path: str) -> None:
    """UserError for a path that a service does not see."""
    hidden = [folder for folder in _PRIVATE if folder in Path(path).parents]
    if hidden:
        raise UserError(
            "a service does not see {path}: put it outside of {folder}",
            code="systemd-private",
            path=path,
            folder=hidden[0],
        )


def _quoted(word: str) -> str:
    """A word of a unit file: quoted, its specifiers and escapes taken as they stand."""
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))
