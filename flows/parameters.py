"""Parameters of the flows, with what the form in the Prefect UI says of each."""

from typing import Annotated

from netsim.settings import Form, SweepSettings


def _described(text: str) -> Form:
    """Return the annotation of a parameter that describes it."""
    return Form(lambda schema: schema | {"description": text})


Sweep = Annotated[SweepSettings, _described("What to compare, on which images, and how it is shown.")]
File = Annotated[
    str,
    _described(
        "Settings file on the machine of the run, or the name of a sweep shipped with netsim. It is read when a run "
        "begins."
    ),
]
Store = Annotated[
    str,
    _described(
        "Path or URL at which everything is stored, as in runs/demo or s3://bucket/demo. What is stored there is not "
        "computed again. Another protocol (images, drawing of pairs, inversion) needs another store."
    ),
]
Label = Annotated[str, _described("Name of the sweep in the store, for `netsim results --sweep`; may be empty.")]
Selected = Annotated[str | None, _described("Sweep of the store, by name; null: the one that was run last.")]
Pairs = Annotated[int | None, _described("Use the first so many pairs; null: all of the sweep.")]
Networks = Annotated[list[str] | None, _described("Networks of the sweep, by name; null: all.")]
TwoNetworks = Annotated[list[str], _described("Two networks of the store, by name; the same twice is allowed.")]
Measures = Annotated[list[str], _described("Similarity measures, by the names that `netsim measure` lists.")]
Patterns = Annotated[list[str], _described("Layers, by patterns of their names, as in layer? or features.*")]
