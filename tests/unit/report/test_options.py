"""Choices that make no sense are refused before a store is read."""

import pytest

from netsim.errors import SettingsError
from netsim.report.options import ReportOptions


@pytest.mark.parametrize(("width", "points"), [("8.5cm", 240.94), ("85 mm", 240.94), ("3.35in", 241.2), ("241pt", 241)])
def test_a_width_is_a_number_with_a_unit(width, points):
    assert ReportOptions(width=width).points == pytest.approx(points, abs=0.01)
    assert ReportOptions().points is None


@pytest.mark.parametrize("width", ["8.5", "0cm", "-1cm", "8.5 em", "1e3cm", "3m", "", "inf", "200.1cm"])
def test_any_other_width_is_refused(width):
    with pytest.raises(SettingsError, match=r"^width must be a length up to 200 cm .*, got '"):
        ReportOptions(width=width)


def test_orders_estimators_and_scales_are_checked():
    assert ReportOptions(estimator="debiased").estimator == "unbiased"
    for options, message in (
        ({"order": "size"}, "unknown order 'size'"),
        ({"estimator": "exact"}, "unknown estimator 'exact'"),
        ({"limits": (1, 0)}, "LOW below HIGH, both finite, got 1 and 0"),
        ({"limits": (0, float("inf"))}, "got 0 and inf"),
        ({"limits": (float("nan"), 1)}, "got nan and 1"),
    ):
        with pytest.raises(SettingsError, match=message):
            ReportOptions(**options)
