"""Public home of `measure`, the decorator for similarity measures of your own; docs/howto/measures.md explains it.

Examples
--------
>>> from netsim.measures import measure
>>> @measure(title="Difference of widths", reference="Example")
... def difference_of_widths(x, y):
...     return float(x.shape[1] - y.shape[1])
"""

from netsim.similarity.measures import measure

__all__ = ["measure"]
