"""Many areas of interest: which inputs serve each, who computes it, and what became of it."""
