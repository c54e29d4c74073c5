"""Options and arguments that several commands take."""

from typing import Annotated

import typer

Store = Annotated[str, typer.Argument(help="path or URL of a run: `runs/demo`, `s3://bucket/run`", show_default=False)]


StoreOption = Annotated[
    str | None, typer.Option("--store", help="path or URL where the run is kept", show_default=False)
]


Workers = Annotated[int | None, typer.Option(min=1, help="worker processes, one thread each; default: one a core")]


Scheduler = Annotated[
    str | None, typer.Option(help="a Dask scheduler's address, instead of workers here", show_default=False)
]


Tls = Annotated[
    str | None,
    typer.Option(
        help="for a scheduler at tls://: the folder of its certificates, as `netsim certificates` makes it",
        metavar="FOLDER",
        show_default=False,
    ),
]


ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="a YAML file with a group `cluster:`, which says where to execute: SLURM, Kubernetes, ...",
        metavar="FILE",
        show_default=False,
    ),
]


Credentials = Annotated[
    str | None,
    typer.Option(
        help="for an s3:// store: a block of type AWS Credentials on the Prefect server",
        metavar="BLOCK",
        show_default=False,
    ),
]


Json = Annotated[bool, typer.Option("--json", help="print JSON for programs")]


Debug = Annotated[bool, typer.Option("--debug", help="show the whole traceback of an error")]
