"""What all commands have in common: where they print, how they end, and how they are stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from rich.table import Table


class Terminal(Console):
    """Says what there is to say to nobody once its reader is gone (`gpuenc transcode … | head`), and goes on."""

    def on_broken_pipe(self) -> None:
        """Do not end the process, as rich does."""
        self.quiet = True
        nobody = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nobody, self.file.fileno())
        os.close(nobody)


# What is shown holds names that others chose, so nothing in it is read as markup.
console = Terminal(markup=False, highlight=False)
errors = Terminal(stderr=True, markup=False, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes, part of the interface."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_INPUT = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


EXIT_MEANS = {
    Exit.OK: "all well",
    Exit.SOME_FAILED: "some files failed, differ, are missing, or have outcomes at odds",
    Exit.USAGE: "what was asked for is wrong, or at odds with what is there: options, a manifest, a report, a journal",
    Exit.NO_INPUT: "there is no input, or it cannot be read",
    Exit.ENVIRONMENT: "the environment lacks something: a plug-in, a GPU, room, permission",
    Exit.INTERRUPTED: "interrupted",
}
EPILOG = f"Exit codes: {'; '.join(f'{code:d} {means}' for code, means in EXIT_MEANS.items())}."

# What errors by their codes mean for the caller; those that are not here are the machine's: ENVIRONMENT.
_OF_CODES = {
    "destination-exists": Exit.USAGE,
    "unreconciled": Exit.SOME_FAILED,
    "invalid-option": Exit.USAGE,
    "journal-differs": Exit.USAGE,
    "journal-missing": Exit.USAGE,
    "journal-unfinished": Exit.USAGE,
    "manifest-wrong": Exit.USAGE,
    "not-a-report": Exit.USAGE,
    "unknown-syntax": Exit.USAGE,
    "unreadable-source": Exit.NO_INPUT,
}


def show(table: Table) -> None:
    """Print a table; whoever reads it from a pipe wants no lines broken."""
    wide = console if console.is_terminal else Terminal(width=240, markup=False, highlight=False)
    wide.print(table)


def give_up(message: str, code: Exit) -> NoReturn:
    """Say why on standard error, and end with `code`."""
    from gpuenc.archive.progress import visible

    errors.print(f"gpuenc: {visible(message)}")
    raise typer.Exit(code)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what cannot be done into a line and an exit code."""
    from gpuenc.errors import GpuencError

    try:
        yield
    except GpuencError as error:
        give_up(str(error), _OF_CODES.get(error.code, Exit.ENVIRONMENT))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Let the first Ctrl-C (or SIGTERM, or the terminal's end) set an event, and a second one end the process."""
    stop = threading.Event()

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in signals}
    # A signal that whoever started us ignores, as nohup does, stays ignored.
    obeyed = [number for number in signals if before[number] is not signal.SIG_IGN]

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        # Whichever comes second ends the process.
        for number in obeyed:
            signal.signal(number, signal.SIG_DFL)

    for number in obeyed:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def flush_quietly() -> None:
    """Write out what is left to say; where nobody reads it (`gpuenc syntaxes | head`), say it to nobody."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
