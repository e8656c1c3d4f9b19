"""Parts that several models are made of; none of them knows a model's name or reads a spec's `name`."""
