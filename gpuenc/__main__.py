"""The `gpuenc` command, and `python -m gpuenc`: what is needed to be stopped comes first, before anything is loaded."""

import os
import signal


def main() -> None:
    """Run the command; Ctrl-C while it is being loaded, or when all is over, ends it with 130 and without a word."""
    # A signal that whoever started us ignores stays ignored.
    obeyed = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if obeyed:
        signal.signal(signal.SIGINT, _end)
    from gpuenc.cli import main as command

    def loaded() -> None:
        if obeyed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        command(loaded)
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        if obeyed:
            signal.signal(signal.SIGINT, _end)


def _end(_number: int, _frame: object) -> None:
    os._exit(130)


if __name__ == "__main__":
    main()
