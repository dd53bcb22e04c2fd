"""A systemd unit that sends beside the kiosk, which itself may not use the network."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from edge_app.systemd import must_be_seen, service_command

CREDENTIAL = "/etc/dermedge/passphrase.cred"


def unit(options: Mapping[str, str], stick: str = "") -> str:
    """`dermedge send --watch` as a service, under the kiosk's user.

    Parameters
    ----------
    options : what follows `dermedge send --watch`, by name. Paths are absolute.
    stick : the folder of a destination, which is read-only for a service that is not given it.

    Raises
    ------
    UserError : a value that no unit can hold, or a path that a service does not see.
    """
    command = service_command([sys.executable, "-m", "dermedge.cli", "send", "--watch"], options)
    home = options.get("--home")
    paths = f"ReadWritePaths={service_command([home], {})}\n" if home else ""
    if stick:  # it may be out while the service starts
        must_be_seen(stick)
        paths += f"ReadWritePaths={service_command([f'-{stick}'], {})}\n"
    return f"""\
# dermedge send --systemd > /etc/systemd/system/dermedge-send.service
# The passphrase of the cases, readable by nobody and on this computer alone:
# install -d -m 0700 /etc/dermedge
# systemd-ask-password -n | systemd-creds encrypt --name=passphrase - {CREDENTIAL}
# systemctl enable --now dermedge-send
[Unit]
Description=dermedge: sending cases
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
User=dermedge
Environment=HOME=%S/dermedge
Environment=XDG_DATA_HOME=%S
LoadCredentialEncrypted=passphrase:{CREDENTIAL}
StateDirectory=dermedge
StateDirectoryMode=0700
UMask=0077
ExecStart={command} --passphrase-file %d/passphrase
Restart=always
RestartSec=30
NoNewPrivileges=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectSystem=strict
ProtectHome=read-only
{paths}RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
Nice=10

[Install]
WantedBy=multi-user.target
"""
