"""`python -m flows.cli`: the `netsim` command."""

from flows.cli.main import main

main()
