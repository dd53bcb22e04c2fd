"""The `dermedge` command: finds the subcommands that the rooms register and runs one of them."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import Any

from dermedge import DISCLAIMER, UserError, __version__
from dermedge.text import printable

GROUP = "dermedge.commands"
DESKTOP = ("train", "export")  # rooms that the wheel leaves out
CHECKOUT = "clone the repository and call `make install`"
DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
EXIT_STATUS = (
    "0 done; 1 it ran, but something failed (a picture or bundle that is damaged, a check, a full "
    "disk, a file that may not be read); 2 wrong use: an option, or a name that is not there; "
    "130 interrupted"
)


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
    renamed: str | None = None  # what it is called now: an old name works, and is not listed


class _Terminated(KeyboardInterrupt):
    """A signal: all that tidies up when a person interrupts does so for a service manager, too."""

    def __init__(self, number: int):
        self.signal = signal.Signals(number)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns its exit status, see `EXIT_STATUS`."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _main(argv), f"dermedge {argv[0]}" if argv else "dermedge")


def guarded(run: Callable[[], int], name: str) -> int:
    """What `run` returns; what it raises is reported in one line, and turned into an exit status.

    Standard output is flushed before the status is known: a full disk behind it is a failure.
    `name` is what an interrupted command is called. A process that is asked to end (SIGTERM), or
    whose terminal is closed (SIGHUP), tidies up, and then ends by that signal. SystemExit passes.
    """
    _leave_working_folder()
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A file name that is no valid text must not end the whole call.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_signal():
            try:
                status = run()
            except SystemExit:
                sys.stdout.flush()
                raise
            sys.stdout.flush()
            return status
    except MemoryError:
        return _fail("not enough memory", FAILED)
    except ImportError as error:
        if _is_ours(error.name):
            raise
        # Its own library lacks another one, or was made for another system.
        return _fail(f"a package cannot be loaded here: {one_line(error)}", FAILED)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and _is_of_output(error):
            # Of a reader that went away (`| head`) nothing need be said.
            gone = isinstance(error, BrokenPipeError)
            return FAILED if gone else _fail(f"standard output: {error.strerror}", FAILED)
        return _fail(one_line(error), _status(error))
    except _Terminated as end:
        _say(f"{name}: ended by {end.signal.name}")
        signal.signal(end.signal, signal.SIG_DFL)
        os.kill(os.getpid(), end.signal)
        return INTERRUPTED
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        return INTERRUPTED
    except Exception as error:
        cv2 = sys.modules.get("cv2")
        if cv2 and isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            return _fail("not enough memory", FAILED)
        raise


def call(main: Callable[[], int | None]) -> int:
    """The exit status of a script (`python -m ROOM.NAME`): that of a command."""
    return guarded(lambda: main() or 0, Path(sys.argv[0]).stem)


def _leave_working_folder() -> None:
    """Take the working folder off the path: a `train.py` of the user's must not stand for ours."""
    checkout = Path(__file__).resolve().parents[2]
    try:
        here = Path.cwd()
    except OSError:  # deleted: nothing in it can be imported
        return
    if not here.samefile(checkout):
        sys.path[:] = [entry for entry in sys.path if not _is_folder(entry, here)]


def _open_streams() -> None:
    """A process that was started without a stream, as by a service, gets one that goes nowhere.

    What is for standard error would be printed among the results.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (until the process ends)


def _is_folder(entry: str, folder: Path) -> bool:
    try:
        return not entry or Path(entry).samefile(folder)
    except OSError:
        return False


def _main(argv: list[str]) -> int:
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(commands))
        return DONE if argv else WRONG_USE
    if argv[0] == "--version":
        print(f"dermedge {__version__}")
        return DONE
    name = argv[0]
    if name not in commands:
        return _fail(
            f"no subcommand '{printable(name)}'; there are: {', '.join(_current(commands))}",
            WRONG_USE,
        )
    command: Command | None = None
    try:
        command = _load(commands[name])
        parser = argparse.ArgumentParser(
            prog=f"dermedge {name}",
            description=command.summary,
            epilog=f"Exit status: {EXIT_STATUS}. {DISCLAIMER}",
        )
        command.arguments(parser)
        if command.renamed:
            _say(f"dermedge: '{name}' is called '{command.renamed}' now; the old name will go")
        return command.run(parser.parse_args([_written_out(word) for word in argv[1:]]))
    except ModuleNotFoundError as error:
        if error.name in DESKTOP and command is None:
            return _fail(f"'{name}' runs in a checkout of dermedge: {CHECKOUT}", WRONG_USE)
        if _is_ours(error.name):
            raise
        extra = f"[{command.extra}]" if command and command.extra else ""
        return _fail(
            f"'{name}' needs the package {error.name}: pip install 'dermedge{extra}'", WRONG_USE
        )


def _written_out(word: str) -> str:
    """A word of the command line with the home folder for its '~'; UserError for an empty one.

    A shell leaves '--out=~/x' as it is, a service manager every '~': a folder '~' would be made.
    An empty word is a variable that is not set. As a path it would mean all of the working folder,
    as an option that it was not given.
    """
    option, separator, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value and (separator or not word):
        raise UserError(
            f"{printable(option) or 'a name'} is empty: is a variable of the shell not set?",
        )
    if value == "~" or value.startswith(("~/", f"~{os.sep}")):
        value = os.path.expanduser(value)
    return f"{option}{separator}{value}"


def _load(entry: EntryPoint) -> Command:
    command: Command = entry.load()
    return command


def _overview(commands: Mapping[str, EntryPoint]) -> str:
    lines = ["usage: dermedge COMMAND ...", "", "commands:"]
    lines += [f"  {name:<12}{summary}" for name, summary in _current(commands).items()]
    lines += ["", "`dermedge COMMAND --help` lists its options.", f"Exit status: {EXIT_STATUS}."]
    return "\n".join([*lines, DISCLAIMER])


def _current(commands: Mapping[str, EntryPoint]) -> dict[str, str]:
    """Name to summary, in order; old names are left out."""
    summaries = {}
    for name in sorted(commands):
        try:
            command = _load(commands[name])
        except ModuleNotFoundError as error:
            if error.name not in DESKTOP:
                raise
            summaries[name] = f"not part of this installation: {CHECKOUT}"
        else:
            if command.renamed is None:
                summaries[name] = command.summary
    return summaries


def _is_ours(module: str | None) -> bool:
    rooms = ("dermedge", "train", "export", "benchmarks", "edge_app")
    return (module or "").split(".")[0] in rooms


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Raise `_Terminated` in the main thread at the first SIGTERM, or SIGHUP where nothing ignores
    it, as `nohup` does; a SIGTERM after it kills."""
    process = os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.getsignal(signal.SIGTERM)}
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) == signal.SIG_DFL:
        before[hangup] = signal.SIG_DFL

    def end(number: int, _frame: FrameType | None) -> None:
        for known in before:
            # Where a terminal is closed, shell and kernel each send a SIGHUP.
            signal.signal(known, signal.SIG_IGN if known == hangup else signal.SIG_DFL)
        if os.getpid() != process:  # a forked worker, which its parent ends
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise _Terminated(number)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    except _Terminated:
        raise
    except BaseException:
        _restore(before)
        raise
    else:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _status(error: BaseException) -> int:
    """`FAILED` where a fault of the machine lies behind the error; a name that is wrong is none."""
    wrong_name = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return WRONG_USE if isinstance(cause, wrong_name) else FAILED
        cause = cause.__cause__ or cause.__context__
    return getattr(error, "exit_status", WRONG_USE)


def _is_of_output(error: OSError) -> bool:
    """Whether standard output failed, which names no file; what was not written is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        # It would fail again when the interpreter ends, and cost the exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    # Where it is not buffered, the write failed, and there is nothing left to flush.
    buffered = isinstance(getattr(sys.stdout, "buffer", None), io.BufferedIOBase)
    full = error.errno in (errno.ENOSPC, errno.EPIPE, errno.EIO)
    return error.filename is None and full and not buffered


def ask_secret(words: str) -> str:
    """What is typed after `words`, not shown; where nobody types, a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    try:
        return getpass(words)
    except EOFError:  # Ctrl+D
        raise KeyboardInterrupt from None


def one_line(error: BaseException) -> str:
    """What an error says, safe for a terminal."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{printable(error.filename)}: " if error.filename else ""
        if named and isinstance(error, FileExistsError) and os.path.isfile(error.filename):
            return f"{named}is a file, where a folder is needed"
        return named + error.strerror
    return printable(" ".join(str(error).split()))


def _fail(message: str, status: int) -> int:
    _say(f"dermedge: {message}")
    return status


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it
        print(line, file=sys.stderr, flush=True)
