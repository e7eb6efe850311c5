"""Networks: plain torch, without noise schedules and without geography."""
