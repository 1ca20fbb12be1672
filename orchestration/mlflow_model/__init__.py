"""The trained pipeline as an MLflow model."""
