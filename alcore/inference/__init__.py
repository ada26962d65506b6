"""The learner over a pool: outputs, features, and the best samples of a stream."""
