"""The contract between learning and serving: recipe, bundle, and every rule that decides."""
