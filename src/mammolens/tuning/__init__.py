"""Which settings of a recipe are best: tried by Optuna, scored by folds of patients. Knows nothing of Ray."""
