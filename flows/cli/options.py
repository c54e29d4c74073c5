"""Options and arguments that several commands share."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

WHERE = "Where to run"
"""Panel of the options that choose workers."""


Settings = Annotated[
    str,
    typer.Argument(
        help="YAML file with the settings, or the name of a sweep shipped with netsim.",
        metavar="SETTINGS",
        show_default=False,
    ),
]


Store = Annotated[
    str,
    typer.Argument(
        help="Path or URL of the run, such as `runs/demo` or `s3://bucket/run`; also as `--store STORE`.",
        metavar="STORE",
        show_default=False,
    ),
]


class StoreCommand(TyperCommand):
    """A command whose first argument is a store, which may be given as `--store STORE` too, as for `netsim run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments, after that of `--store` has become the first one."""
        options = args[: args.index("--")] if "--" in args else args
        for position, option in enumerate(options):
            name, equals, value = option.partition("=")
            if name == "--store":
                end = position + 1 if equals else position + 2
                store = [value] if equals else args[position + 1 : end]
                args = [*store, *args[:position], *args[end:]]
                break
        return super().parse_args(ctx, args)


StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Path or URL to store the run at.", metavar="STORE", show_default="runs/NAME"),
]


Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting, as in `--set pairs.count=64`; repeatable.", metavar="KEY=VALUE"),
]


Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of local worker processes, one thread each.",
        metavar="N",
        show_default="one per core",
        rich_help_panel=WHERE,
    ),
]


Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Use the workers of this Dask scheduler, such as `tcp://host:8786`.",
        metavar="ADDRESS",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]


Tls = Annotated[
    str | None,
    typer.Option(
        help="Folder with the certificates of a `tls://` scheduler; `netsim certificates` creates one.",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]


ClusterFile = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="YAML file whose `cluster:` group says where to run: SLURM, Kubernetes, ...",
        metavar="FILE",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]


Credentials = Annotated[
    str | None,
    typer.Option(
        help="AWS Credentials block on the Prefect server, for an `s3://` store.",
        metavar="BLOCK",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]


ShardsPerTask = Annotated[
    int | None,
    typer.Option(min=1, help="Number of shards per Prefect task run. [default: 4]", metavar="N", rich_help_panel=WHERE),
]


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only, no progress.")]


Debug = Annotated[bool, typer.Option("--debug", help="Show logs, and the full traceback of an error.")]


Sweep = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        help="Sweep of the store, by its name or id.",
        metavar="NAME",
        show_default="the one run last",
    ),
]


Networks = Annotated[
    str | None,
    typer.Option(
        "--networks",
        help="Networks to show, in this order.",
        metavar="NAME,NAME,...",
        show_default="those of the sweep",
    ),
]


Pairs = Annotated[
    int | None,
    typer.Option("--pairs", help="Number of pairs to use.", metavar="N", show_default="those of the sweep"),
]


Order = Annotated[
    str,
    typer.Option(
        "--order",
        help="Order of networks: `given`, `name`, `clustered` (neighbours are similar), or `mean` (highest row first).",
        metavar="given|name|clustered|mean",
    ),
]


EstimatorOption = Annotated[
    str, typer.Option("--estimator", help="Estimator of the matrices.", metavar="unbiased|biased")
]


def names(listed: str | None) -> list[str] | None:
    """Split names at commas."""
    return None if listed is None else [name.strip() for name in listed.split(",") if name.strip()]
