"""The `netsim` command. Exit codes: 0 success, 1 the run or the store failed, 2 bad settings or command line."""

import atexit
import gc
import sys
from typing import Annotated

import typer

from flows.cli import doctor, grow, inspect, measure, planning, reference, run, tools
from flows.cli.failures import explain_failure
from flows.cli.options import StoreCommand
from flows.cli.streams import prepare_streams, use_utf8
from netsim import __version__
from netsim.errors import NetsimError, printable
from netsim.references import NETWORK_FORMS

NETWORKS_HELP = "Networks are named by reference:\n\n" + "\n".join(
    f"* `{form}`: {description}" for form, description in NETWORK_FORMS.values()
)

app = typer.Typer(
    name="netsim",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def print_version(requested: bool) -> None:
    """Print the installed version and exit."""
    if requested:
        print(f"netsim {__version__}")
        raise typer.Exit


@app.callback()
def netsim(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure how similar trained neural networks are, on natural images and after inversion.

    Start with `netsim demo`. Every command explains itself: `netsim COMMAND --help`.
    """


RUN, GROW, READ, ANALYZE, PREPARE = "Run sweeps", "Grow runs", "Read runs", "Analyze further", "Prepare"

app.command(rich_help_panel=RUN)(run.demo)
app.command(rich_help_panel=RUN, epilog=NETWORKS_HELP)(run.run)
app.command(rich_help_panel=RUN)(planning.plan)
app.command(cls=StoreCommand, rich_help_panel=GROW, epilog=NETWORKS_HELP)(grow.add)
app.command(cls=StoreCommand, rich_help_panel=GROW)(grow.extend)
app.command(cls=StoreCommand, rich_help_panel=GROW)(grow.score)
app.command(cls=StoreCommand, rich_help_panel=GROW)(grow.drop)
app.command("list", rich_help_panel=READ)(grow.list_)
app.command(cls=StoreCommand, rich_help_panel=READ)(inspect.status)
app.command(cls=StoreCommand, rich_help_panel=READ)(inspect.results)
app.command(cls=StoreCommand, rich_help_panel=READ)(inspect.report)
app.command(cls=StoreCommand, rich_help_panel=READ)(inspect.study)
app.command(rich_help_panel=READ)(grow.compare)
app.command(cls=StoreCommand, rich_help_panel=READ)(inspect.verify)
app.command(cls=StoreCommand, rich_help_panel=ANALYZE)(measure.measure)
app.command(cls=StoreCommand, rich_help_panel=ANALYZE)(measure.layers)
app.command(rich_help_panel=PREPARE)(doctor.doctor)
app.command(rich_help_panel=PREPARE)(reference.settings)
app.command(rich_help_panel=PREPARE, epilog=NETWORKS_HELP)(tools.convert)
app.command(rich_help_panel=PREPARE)(tools.certificates)


def relax_collector() -> None:
    """Let Python's garbage collector run less often, and not at exit: it took half of imports, and a second more."""
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)


def main() -> None:
    """Run a command; report an error that a user can cause in one or two lines, with its exit code."""
    relax_collector()
    use_utf8()
    prepare_streams()
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=True)
    except NetsimError as error:
        if debug:
            raise
        print(f"netsim: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(explain_failure(error), file=sys.stderr)
        sys.exit(1)
