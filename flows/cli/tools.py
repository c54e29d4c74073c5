"""netsim convert, certificates."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Debug


def convert(
    network: Annotated[
        str, typer.Argument(help="whose weights these are: `robust:resnet50_l2_eps3`", show_default=False)
    ],
    checkpoint: Annotated[
        str | None, typer.Argument(help="the pickled file; of a robust: network it is downloaded", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="the safetensors file to write", show_default=False)
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="the hash that the checkpoint must have", metavar="HEX", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="read the pickle, in a process that runs nothing that is in it")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make safetensors of a pickled checkpoint, once: sweeps read nothing else.

    Takes what the robustness library saves (and so the networks of Salman et al.), and plain state dicts. Tensors that
    are missing, left over or of another shape are named, and nothing is written then.
    """
    from flows.cli import console
    from netsim.networks.convert import convert as make

    made = make(network, checkpoint, output=output, sha256=sha256, allow_pickle=allow_pickle)
    console.console.print(f"{made.path}\nname it in a sweep as {made.reference}", soft_wrap=True)


def certificates(
    folder: Annotated[Path, typer.Argument(help="a new one, or an empty one")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="how long they are valid")] = 365,
    debug: Debug = False,
) -> None:
    """Make certificates with which a Dask scheduler, its workers and sweeps talk encrypted, and with nobody else.

    Whoever can read `key.pem` can have the scheduler and its workers run any code.
    """
    from flows.cli import console
    from flows.clusters.certificates import make_certificates

    until = make_certificates(folder, days=days)
    console.console.print(f"{folder}: ca.pem, cert.pem, key.pem, valid until {until:%Y-%m-%d}", soft_wrap=True)
