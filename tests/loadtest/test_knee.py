"""Knees and curves from stages whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.knee import Stage, find, fit

pytest.importorskip("scipy", reason="the extra `load` is not installed")


def law(n: float, gamma: float, sigma: float, kappa: float) -> float:
    return gamma * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


@pytest.mark.parametrize(("gamma", "sigma", "kappa"), [(900.0, 0.05, 0.0004), (120.0, 0.0, 0.001), (2_000.0, 0.2, 0.0)])
def test_a_curve_is_found_again(gamma: float, sigma: float, kappa: float) -> None:
    points = [(n, law(n, gamma, sigma, kappa)) for n in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)]
    found = fit(points)
    assert found is not None
    assert (found.gamma, found.sigma, found.kappa) == pytest.approx((gamma, sigma, kappa), rel=0.02, abs=1e-5)
    assert found.r2 == pytest.approx(1.0, abs=1e-6)


def test_noise_lowers_what_the_curve_explains() -> None:
    rng = np.random.default_rng(5)
    points = [(n, law(n, 900.0, 0.05, 0.0004) * rng.uniform(0.4, 1.6)) for n in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)]
    found = fit(points)
    assert found is not None
    assert found.r2 < 0.95


def test_the_knee_is_the_last_rate_that_is_kept() -> None:
    stages = [
        Stage(100, 100, 5.0),
        Stage(200, 199, 9.0),
        Stage(400, 385, 60.0),
        Stage(800, 500, 900.0),
    ]
    found = find(stages, slo_p99_ms=50.0)
    assert (found.knee_per_s, found.slo_per_s) == (400, 200)
    assert found.usl is None, "nobody knew how many calls were in flight"


def test_a_server_that_keeps_nothing_has_no_knee() -> None:
    found = find([Stage(100, 10, 5_000.0)], slo_p99_ms=50.0)
    assert (found.knee_per_s, found.slo_per_s) == (0.0, 0.0)
