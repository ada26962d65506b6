"""The learner over a pool: outputs, features, uncertainty, and the best samples of a stream."""

from alcore.inference.context import InferenceContext
from alcore.inference.evaluation import EVALUATION_ROWS, Evaluation, evaluate
from alcore.inference.extraction import check_layer, extract_features, labeled_features, labeled_targets, outputs_of
from alcore.inference.features import FeatureCache, Features
from alcore.inference.learner import (
    eval_mode,
    evaluating,
    learner_state,
    load_model,
    model_digest,
    model_state,
    place_learner,
)
from alcore.inference.outputs import (
    Kind,
    binary_logits,
    by_position,
    check_outputs,
    class_probabilities,
    default_loss,
    first_rows,
    is_binary,
    is_map,
    kind_of,
    predicted_classes,
    reduce_map,
    take_rows,
)
from alcore.inference.ranking import Ranked, TopK, merge
from alcore.inference.streaming import check_scores, chunk_rows, chunks, subset, top_k

__all__ = [
    "EVALUATION_ROWS",
    "Evaluation",
    "FeatureCache",
    "Features",
    "InferenceContext",
    "Kind",
    "Ranked",
    "TopK",
    "binary_logits",
    "by_position",
    "check_layer",
    "check_outputs",
    "check_scores",
    "chunk_rows",
    "chunks",
    "class_probabilities",
    "default_loss",
    "eval_mode",
    "evaluate",
    "evaluating",
    "extract_features",
    "first_rows",
    "is_binary",
    "is_map",
    "kind_of",
    "labeled_features",
    "labeled_targets",
    "learner_state",
    "load_model",
    "merge",
    "model_digest",
    "model_state",
    "outputs_of",
    "place_learner",
    "predicted_classes",
    "reduce_map",
    "subset",
    "take_rows",
    "top_k",
]
