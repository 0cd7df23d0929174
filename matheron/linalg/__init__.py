"""Linear algebra that knows nothing of fields: dense, by near neighbours, and compiled."""
