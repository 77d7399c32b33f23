"""What a model family offers, and how its attention is read."""
