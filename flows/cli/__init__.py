"""The command line.

main       the command and its exit codes; options: what several commands take
run        demo, run; planning: plan; inspect: status, results, verify, report; measure: measure, layers
tools      convert, certificates
session    what surrounds a flow: server, progress bars, Ctrl-C
console    progress and status in a terminal; tables: results in a terminal
"""
