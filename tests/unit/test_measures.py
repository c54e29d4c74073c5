"""`netsim.measures` is where users import the decorator from."""

from netsim import measures
from netsim.similarity.measures import find_measure


@measures.measure(title="Difference of widths", reference="this test")
def difference_of_widths(x, y):
    return float(x.shape[1] - y.shape[1])


def test_a_measure_decorated_by_the_public_name_is_found_by_module_and_function():
    found = find_measure(f"{__name__}:difference_of_widths")
    assert (found.title, found.compute) == ("Difference of widths", difference_of_widths)
