"""`netsim convert` and `netsim certificates`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Debug
from netsim.references import with_absolute_paths


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
            help="Checkpoint to read; downloaded for `robust:` networks.",
            metavar="CHECKPOINT",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Safetensors file to write.", metavar="FILE", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Where the weights are in the checkpoint, such as `state_dict_ema`; required if it has several.",
            metavar="KEY",
            show_default=False,
        ),
    ] = None,
    strip_prefix: Annotated[
        str | None,
        typer.Option(
            help="Text that names of tensors begin with, such as `backbone_`; prefixes that end with a dot, such as "
            "`module.`, are found without it.",
            metavar="PREFIX",
            show_default=False,
        ),
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
    """Convert a checkpoint to safetensors. Only pickles require it: sweeps read plain tensors as they are.

    Finds the weights by the names and shapes of the network's tensors, whatever they are wrapped in. If a checkpoint
    has raw and averaged weights, `--key` chooses. Missing or unexpected tensors and wrong shapes are listed, and
    nothing is written. A checkpoint with more than tensors, numbers and text is read only with `--allow-pickle` and
    its `--sha256`.

    For example:

    * `netsim convert robust:resnet50_l2_eps3`: download a checkpoint and print its hash
    * `netsim convert timm:resnet50 mine.pth --key state_dict_ema`: take averaged weights
    """
    from flows.cli import console
    from netsim.networks.convert import convert as convert_checkpoint
    from netsim.networks.weights import listed

    converted = convert_checkpoint(
        with_absolute_paths(network, os.getcwd()),
        checkpoint,
        output=output,
        key=key,
        strip_prefix=strip_prefix,
        sha256=sha256,
        allow_pickle=allow_pickle,
    )
    lines = [f"wrote {converted.path}", f"use it in a sweep as {converted.reference}"]
    lines += [f"weights are those under {converted.key}"] if converted.key else []
    lines += [f"ignored {listed(converted.ignored)}"] if converted.ignored else []
    console.console.print(console.plain("\n".join(lines)), soft_wrap=True)


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

    For example:

    * `netsim certificates tls --days 30`: then `netsim run mine.yaml --scheduler tls://host:8786 --tls tls`
    """
    from flows.cli import console
    from flows.clusters.certificates import make_certificates

    expiry = make_certificates(folder, days=days)
    console.console.print(
        f"wrote ca.pem, cert.pem and key.pem to {folder}, valid until {expiry:%Y-%m-%d}", soft_wrap=True
    )
