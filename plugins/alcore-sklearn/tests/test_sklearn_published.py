"""Margin sampling with an RBF SVM on breast cancer, as published to the last digit.

Lu, Li and Lin, Re-benchmarking pool-based active learning for binary classification, 2023 (arXiv 2306.08954); figures
of each seed: github.com/ariapoy/active-learning-benchmark, results of margin sampling on wdbc.
"""

from __future__ import annotations

import queue

import numpy as np
import pytest
import torch
from alcore_dummy import DummyLabelStrategy
from alcore_f1 import F1Metrology
from alcore_sklearn import SklearnLearner
from alcore_uq import ClassifierUQQuery
from sklearn.datasets import load_breast_cancer

from alcore import DataInfo, Driver, TensorPool
from alcore import config as c
from alcore.training import FittingLoop

PUBLISHED = {0: 0.97213, 3: 0.94278}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_area_under_the_curve_of_a_seed(tmp_path, seed):
    inputs, codes = load_breast_cancer(return_X_y=True)
    codes = 1 - codes  # there malignant is the positive class
    order = np.arange(569)
    np.random.default_rng(seed).shuffle(order)
    train, test = order[:341].copy(), order[341:]
    np.random.default_rng(seed).shuffle(train)
    scaled = torch.from_numpy((inputs - inputs[train].mean(axis=0)) / inputs[train].std(axis=0))
    info = DataInfo("classification", 2, 30, (30,))
    pool = TensorPool(scaled[train], torch.from_numpy(codes[train]), range(20), info)
    held_out = TensorPool(scaled[test], torch.from_numpy(codes[test]), range(228), info)
    metrology = F1Metrology()
    Driver(
        c.DriverConfig(
            batch_size=512, checkpoint_interval=0, root_log_dir=tmp_path, device="cpu", dtype=torch.float64, seed=seed
        ),
        SklearnLearner("SVC", {"C": 1.0, "gamma": "auto"}, order="pool", info=info),
        c.StrategiesConfig([ClassifierUQQuery(1, "margin")], queue.Queue, DummyLabelStrategy(), [metrology]),
        c.TrainingConfig(pool, 1, val_datapool=held_out, train_loop_fn=FittingLoop()),
    ).run()
    accuracies = [record["accuracy"] for record in metrology.records][1:]  # those after query 1, 2, ... 321
    assert len(accuracies) == 321
    assert np.trapezoid(accuracies) / 321 == pytest.approx(PUBLISHED[seed], abs=5e-6)
