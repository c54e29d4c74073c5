"""Figures have the width that was chosen, and no background behind their axes."""

import pytest

from netsim.errors import SettingsError
from netsim.report.canvas import CENTIMETRES, TooNarrowError, plot


def test_a_width_goes_to_the_axes_and_the_margins_stay():
    figure, axes = plot(300, None, (20, 30, 10, 5), 200)
    assert [72 * inches for inches in figure.get_size_inches()] == pytest.approx([200, 165])
    box = axes.get_position()
    assert [box.x0 * 200, box.width * 200, box.height * 165] == pytest.approx([20, 150, 150])
    assert not axes.patch.get_visible()
    figure, _ = plot(300, 100, (20, 30, 10, 5), None)
    assert [72 * inches for inches in figure.get_size_inches()] == pytest.approx([350, 115])


def test_the_least_width_is_named_in_centimetres_and_suffices():
    with pytest.raises(
        SettingsError, match=r"width must be at least 3\.9 cm for a plot with these names, got 2 cm"
    ) as refused:
        plot(300, None, (20, 30, 10, 5), 2 / CENTIMETRES)
    assert isinstance(refused.value, TooNarrowError)
    plot(300, None, (20, 30, 10, 5), refused.value.least)
