"""The command line.

main       the command and its exit codes; options: those that several commands share
run        demo, run; planning: plan; inspect: status, results, verify, report; measure: measure, layers
tools      convert, certificates; reference: settings; doctor: doctor
session    the environment of a flow in a terminal: server, progress bars; signals: Ctrl-C, SIGTERM, SIGHUP
orchestrators    settings of Prefect and Dask; failures: errors of libraries, explained
streams    text of any locale
console    progress and status in a terminal; tables: results in a terminal
"""
