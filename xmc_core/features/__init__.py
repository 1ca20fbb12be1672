"""Texts to sparse rows: tf-idf, label features, joined blocks."""
