"""The rivals: models of scikit-learn as they come, on the same labels and inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge

MOST_OF_GP = 1000


def classifiers(seed: int) -> dict[str, Any]:
    """Return the rivals of a classification by name."""
    return {
        "LR": LogisticRegression(max_iter=1000),
        "RF": RandomForestClassifier(200, random_state=seed),
    }


def regressors(seed: int, features: int) -> dict[str, Any]:
    """Return the rivals of a regression by name; the Gaussian process has a length scale for each feature."""
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.ones(features), (1e-2, 1e4)) + WhiteKernel(0.1, (1e-6, 1e2))
    return {
        "ridge": Ridge(),
        "RF": RandomForestRegressor(200, random_state=seed),
        "GP": GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed),
    }


def probabilities(model: Any, inputs: Any, classes: int) -> Any:
    """Return the probabilities of all classes, (B, classes); 0 for those that had no label."""
    given = model.predict_proba(inputs)
    whole = np.zeros((len(inputs), classes))
    whole[:, model.classes_.astype(int)] = given
    return whole
