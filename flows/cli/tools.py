"""`netsim convert` and `netsim certificates`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Debug


def convert(
    network: Annotated[
        str,
        typer.Argument(
            help="Network the weights belong to, such as `robust:resnet50_l2_eps3`.",
            metavar="NETWORK",
            show_default=False,
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Pickled checkpoint to read; downloaded for `robust:` networks.",
            metavar="CHECKPOINT",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Safetensors file to write.", metavar="FILE", show_default=False),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Require the checkpoint to have this hash.", metavar="HEX", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Read the pickle, in a separate process that executes nothing in it."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Convert a pickled checkpoint to safetensors, the only format sweeps read.

    Reads checkpoints of the robustness library (and so the networks of Salman et al.) and plain state dicts. Missing
    or unexpected tensors and wrong shapes are listed, and nothing is written.
    """
    from flows.cli import console
    from netsim.networks.convert import convert as convert_checkpoint

    converted = convert_checkpoint(network, checkpoint, output=output, sha256=sha256, allow_pickle=allow_pickle)
    console.console.print(f"wrote {converted.path}\nuse it in a sweep as {converted.reference}", soft_wrap=True)


def certificates(
    folder: Annotated[
        Path, typer.Argument(help="New or empty folder to write to.", metavar="FOLDER", show_default=False)
    ],
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="Number of days the certificates are valid.", metavar="N")
    ] = 365,
    debug: Debug = False,
) -> None:
    """Create TLS certificates for a Dask scheduler, its workers and sweeps.

    Keep `key.pem` secret: anyone who can read it can run any code on the scheduler and its workers.
    """
    from flows.cli import console
    from flows.clusters.certificates import make_certificates

    expiry = make_certificates(folder, days=days)
    console.console.print(
        f"wrote ca.pem, cert.pem and key.pem to {folder}, valid until {expiry:%Y-%m-%d}", soft_wrap=True
    )
