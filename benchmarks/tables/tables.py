"""The tables: which there are, which of them defaults are chosen on, and on which they are reported.

Of the sorted names of each kind every other one, from the first on, is to choose on; the rest is held back. That was
fixed before the first fit, like the seeds and the rivals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3, make_regression

SEEDS = range(5)
"""The seeds of split, labels and learner."""
LABELS = (50, 200, 1000)
"""How many labels are trained on where it is measured."""
ROWS = 2000
"""How many rows are held out to measure on, at most."""

KEEL = (
    "australian", "banana", "chess", "contraceptive", "crx", "german", "letter", "magic", "mammographic", "marketing",
    "optdigits", "penbased", "phoneme", "pima", "ring", "satimage", "segment", "spambase", "splice", "texture",
    "tic-tac-toe", "twonorm", "vehicle", "wdbc",
)  # fmt: skip
"""Tables of classes, of the KEEL repository (Alcala-Fdez et al. 2011), with at least 500 rows."""

ISLP = {
    "auto": ("Auto", "mpg", ("name",)),
    "bikeshare": ("Bikeshare", "bikers", ("casual", "registered")),
    "carseats": ("Carseats", "Sales", ()),
    "college": ("College", "Outstate", ()),
    "credit": ("Credit", "Balance", ("ID",)),
    "nyse": ("NYSE", "log_volume", ("date", "train")),
    "wage": ("Wage", "wage", ("logwage", "region")),
}
"""Tables of values, of James et al. 2023, An Introduction to Statistical Learning: the file, its target, and columns
that are left out, since they name rows, or have the target in them."""


def _borehole(u: Any) -> Any:
    """Return the flow of water through a borehole, m3/a (Harper and Gupta 1983)."""
    low = np.array([0.05, 100, 63070, 990, 63.1, 700, 1120, 9855])
    high = np.array([0.15, 50000, 115600, 1110, 116, 820, 1680, 12045])
    rw, r, tu, hu, tl, hl, length, kw = (low + u * (high - low)).T
    ratio = np.log(r / rw)
    return 2 * np.pi * tu * (hu - hl) / (ratio * (1 + 2 * length * tu / (ratio * rw**2 * kw) + tu / tl))


def _circuit(u: Any) -> Any:
    """Return the midpoint voltage of an output transformerless push-pull circuit, V (Ben-Ari and Steinberg 2007)."""
    low, high = np.array([50, 25, 0.5, 1.2, 0.25, 50]), np.array([150, 70, 3, 2.5, 1.2, 300])
    rb1, rb2, rf, rc1, rc2, beta = (low + u * (high - low)).T
    vb1, load = 12 * rb2 / (rb1 + rb2), beta * (rc2 + 9)
    return (vb1 + 0.74) * load / (load + rf) + 11.35 * rf / (load + rf) + 0.74 * rf * load / ((load + rf) * rc1)


def _piston(u: Any) -> Any:
    """Return the cycle time of a piston, s (Kenett and Zacks 1998)."""
    low = np.array([30, 0.005, 0.002, 1000, 90000, 290, 340])
    high = np.array([60, 0.020, 0.010, 5000, 110000, 296, 360])
    m, s, v0, k, p0, ta, t0 = (low + u * (high - low)).T
    a = p0 * s + 19.62 * m - k * v0 / s
    v = s / (2 * k) * (np.sqrt(a**2 + 4 * k * p0 * v0 * ta / t0) - a)
    return 2 * np.pi * np.sqrt(m / (k + s**2 * p0 * v0 * ta / (t0 * v**2)))


def _wing(u: Any) -> Any:
    """Return the weight of a light aircraft's wing, lb (Forrester, Sobester and Keane 2008)."""
    low = np.array([150, 220, 6, -10, 16, 0.5, 0.08, 2.5, 1700, 0.025])
    high = np.array([200, 300, 10, 10, 45, 1, 0.18, 6, 2500, 0.08])
    sw, fuel, aspect, sweep, q, taper, thick, load, gross, paint = (low + u * (high - low)).T
    cos = np.cos(np.deg2rad(sweep))
    return (
        0.036 * sw**0.758 * fuel**0.0035 * (aspect / cos**2) ** 0.6 * q**0.006 * taper**0.04
        * (100 * thick / cos) ** -0.3 * (load * gross) ** 0.49 + sw * paint
    )  # fmt: skip


def _arm(u: Any) -> Any:
    """Return the distance of the end of a robot's arm from its base (An and Owen 2001)."""
    angles, lengths = np.cumsum(2 * np.pi * u[:, :4], axis=1), u[:, 4:]
    return np.hypot((lengths * np.cos(angles)).sum(axis=1), (lengths * np.sin(angles)).sum(axis=1))


def _ishigami(u: Any) -> Any:
    """Return the function of Ishigami and Homma 1990, with a = 7 and b = 0.1."""
    x = np.pi * (2 * u - 1)
    return np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])


def _simulated(function: Callable[[Any], Any], columns: int, noise: float = 0.0) -> Callable[[], Any]:
    """Return what makes 4000 rows of a function of the unit cube; the noise is a share of its standard deviation."""

    def make() -> Any:
        rng = np.random.default_rng(0)
        inputs = rng.random((4000, columns))
        values = function(inputs)
        return inputs, values + noise * values.std() * rng.standard_normal(len(values))

    return make


MADE: dict[str, Callable[[], Any]] = {
    "arm": _simulated(_arm, 8),
    "borehole": _simulated(_borehole, 8),
    "circuit": _simulated(_circuit, 6, 0.1),
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: make_friedman1(4000, noise=1.0, random_state=0),
    "friedman2": lambda: make_friedman2(4000, noise=50.0, random_state=0),
    "friedman3": lambda: make_friedman3(4000, noise=0.1, random_state=0),
    "ishigami": _simulated(_ishigami, 3),
    "linear": lambda: make_regression(4000, 10, n_informative=5, noise=10.0, random_state=0),
    "piston": _simulated(_piston, 7, 0.1),
    "wing": _simulated(_wing, 10),
}
"""Tables of values that are made: functions of simulations, and those of scikit-learn (with its diabetes)."""

KINDS = {"classification": sorted(KEEL), "regression": sorted([*ISLP, *MADE])}
"""The names of the tables by kind."""
CHOSEN_ON = {kind: names[::2] for kind, names in KINDS.items()}
"""The tables that defaults may be chosen on; the others are held back."""
