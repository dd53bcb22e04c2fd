"""The systemd unit that starts a kiosk at boot."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from dermedge import UserError

_WRITES = ("--home", "--captures")  # options that name a folder which the kiosk writes to
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # a service has its own


_UNIT = """\
# dermedge app --systemd > /etc/systemd/system/dermedge.service
# useradd --system --groups video,render,input dermedge
{made}# systemctl enable --now dermedge
# What runs fastest is found by the service's own user, and used from the next start on:
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
PrivateTmp=yes
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
    command = _command(program, options)
    folders = [options[name] for name in _WRITES if options.get(name)]
    writable = "".join(f"ReadWritePaths={_quoted(folder)}\n" for folder in folders)
    own = "sudo -u dermedge env XDG_CACHE_HOME=/var/cache/dermedge"
    bundle = [
        word
        for name in ("--bundle", "--trusted-key")
        if name in options
        for word in (name, options[name])
    ]
    tune = shlex.join([*program, "tune", *bundle])
    made = "".join(
        f"# {shlex.join(['install', '-d', '-o', 'dermedge', '-m', '0700', folder])}\n"
        for folder in folders
    )
    return _UNIT.format(
        made=made, own=own, tune=tune, display=display, command=command, writable=writable
    )


def _command(program: list[str], options: Mapping[str, str]) -> str:
    """The line that starts the program; raises UserError as `unit` does."""
    start = [*program, "app", "--kiosk"]
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
        hidden = [folder for folder in _PRIVATE if folder in Path(word).parents]
        if hidden and word in options.values():
            raise UserError(
                "a service does not see {path}: put it outside of {folder}",
                code="systemd-private",
                path=word,
                folder=hidden[0],
            )
    # The program's own name is not searched for variables.
    return " ".join([_quoted(start[0]), *(_quoted(w).replace("$", "$$") for w in start[1:])])


def _quoted(word: str) -> str:
    """A word of a unit file: quoted, its specifiers and escapes taken as they stand."""
    return '"{}"'.format(word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"))
