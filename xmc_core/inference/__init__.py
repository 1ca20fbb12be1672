"""From features and a trained tree of rankers to ranked labels."""
