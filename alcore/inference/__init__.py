"""The learner over the pools of a run: outputs chunk by chunk, features, what is measured, and the best samples."""

from alcore.inference.context import InferenceContext
from alcore.inference.evaluation import Evaluation, MeasuredOn, evaluate
from alcore.inference.extraction import extract_features, labeled_features, labeled_targets, outputs_of
from alcore.inference.features import FeatureCache, Features
from alcore.inference.learner import learner_state, model_digest, model_state, place_learner
from alcore.inference.ranking import Ranked, TopK, merge
from alcore.inference.streaming import check_scores, chunks, per_cost, subset, top_k
from alcore.inference.variances import has_covariance, posterior_covariance, predictive

__all__ = [
    "Evaluation",
    "FeatureCache",
    "Features",
    "InferenceContext",
    "MeasuredOn",
    "Ranked",
    "TopK",
    "check_scores",
    "chunks",
    "evaluate",
    "extract_features",
    "has_covariance",
    "labeled_features",
    "labeled_targets",
    "learner_state",
    "merge",
    "model_digest",
    "model_state",
    "outputs_of",
    "per_cost",
    "place_learner",
    "posterior_covariance",
    "predictive",
    "subset",
    "top_k",
]
