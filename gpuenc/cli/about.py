"""`gpuenc syntaxes` and `gpuenc doctor`: what can be done here."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from gpuenc.cli.terminal import console, show


def syntaxes() -> None:
    """Show what can be encoded here, and by which plug-ins, in their order."""
    from gpuenc.registry import get_encoder
    from gpuenc.syntaxes import TABLE

    table = Table(box=SIMPLE, pad_edge=False)
    # At 80 columns only one name has to be broken, and no UID.
    table.add_column("name", overflow="fold", min_width=25)
    table.add_column("UID", no_wrap=True)
    table.add_column("loss", no_wrap=True)
    table.add_column("plug-ins here", min_width=13)
    missing: dict[str, list[str]] = {}
    for syntax in TABLE:
        loss = "either" if syntax.loss == "option" else syntax.loss
        here = "none needed"
        if syntax.encapsulated:
            encoder = get_encoder(syntax.uid)
            here = ", ".join(encoder.labels) or "none"
            for line in encoder.missing_dependencies:
                missing.setdefault(line, []).append(syntax.name)
        table.add_row(syntax.name, syntax.uid, loss, here)
    show(table)
    for line, names in missing.items():
        console.print(f"could be added: {line} (for {', '.join(names)})", soft_wrap=not console.is_terminal)


def doctor() -> None:
    """Show what is installed and found, and what is missing."""
    from gpuenc.doctor import findings

    table = Table(show_header=False, box=SIMPLE)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, found in findings():
        table.add_row(what, found)
    show(table)
