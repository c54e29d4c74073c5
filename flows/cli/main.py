"""The `netsim` command. Exit codes: 0 success, 1 the run or the store failed, 2 bad settings or command line."""

import sys

import typer

from flows.cli import inspect, measure, planning, run, tools
from netsim.errors import NetsimError, printable
from netsim.references import NETWORK_FORMS

app = typer.Typer(
    name="netsim",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="How similar are trained networks, naturally and after inversion? Try `netsim demo` first.",
)

NETWORKS_HELP = "Networks are named by reference:\n\n" + "\n".join(
    f"* `{form}`: {description}" for form, description in NETWORK_FORMS.values()
)

app.command()(run.demo)
app.command(epilog=NETWORKS_HELP)(run.run)
app.command()(planning.plan)
app.command(epilog=NETWORKS_HELP)(tools.convert)
app.command()(inspect.status)
app.command()(inspect.results)
app.command()(inspect.verify)
app.command()(measure.measure)
app.command()(measure.layers)
app.command()(inspect.report)
app.command()(tools.certificates)


def main() -> None:
    """Run a command; turn what a user can cause into one or two lines and an exit code."""
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
        said = f"netsim: unexpected {type(error).__name__}: {error}"
        print(f"{printable(said)}\n--debug shows where; please report it", file=sys.stderr)
        sys.exit(1)
