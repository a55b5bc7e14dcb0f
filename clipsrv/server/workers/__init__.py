"""Several processes that share one address: who starts them, what they tell each other, what they say together."""
