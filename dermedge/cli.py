"""The `dermedge` command: finds the subcommands that the rooms register and runs one of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from dermedge import DISCLAIMER, UserError, __version__

GROUP = "dermedge.commands"


@dataclass(frozen=True)
class Command:
    """One subcommand, registered by its room under the entry point group `dermedge.commands`.

    `run` gets the parsed arguments and returns the exit status. It imports what is heavy itself,
    so that `--help` and a device without the extra stay fast. `extra` names the optional
    dependencies it needs (None: the base install is enough).
    """

    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    extra: str | None = None


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns 0, 1 (ran, but something in it failed), 2 (wrong use), 130."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A file name that is no valid text must not end the whole call.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(commands))
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"dermedge {__version__}")
        return 0
    name = argv[0]
    if name not in commands:
        return _fail(f"no subcommand '{name}'; there are: {', '.join(sorted(commands))}")
    command = None
    try:
        command = commands[name].load()
        parser = argparse.ArgumentParser(
            prog=f"dermedge {name}", description=command.summary, epilog=DISCLAIMER
        )
        command.arguments(parser)
        return command.run(parser.parse_args(argv[1:]))
    except ModuleNotFoundError as error:
        if _is_ours(error.name):
            raise
        extra = f"[{command.extra}]" if command and command.extra else ""
        return _fail(f"'{name}' needs the package {error.name}: pip install 'dermedge{extra}'")
    except BrokenPipeError:
        # The reader of our output went away (`| head`); nothing is left to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UserError, OSError) as error:
        return _fail(_one_line(error))
    except KeyboardInterrupt:
        print(f"dermedge {name}: interrupted", file=sys.stderr)
        return 130


def _overview(commands) -> str:
    lines = ["usage: dermedge COMMAND ...", "", "commands:"]
    for name in sorted(commands):
        lines.append(f"  {name:<12}{commands[name].load().summary}")
    return "\n".join([*lines, "", "`dermedge COMMAND --help` tells its options.", DISCLAIMER])


def _is_ours(module: str | None) -> bool:
    rooms = ("dermedge", "train", "export", "benchmarks", "edge_app")
    return (module or "").split(".")[0] in rooms


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _fail(message: str) -> int:
    print(f"dermedge: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
