"""Several processes: how they start, what they tell each other, what they share."""
