"""Training: pairs of dates, samples with synthetic change, one loop."""
