"""What a sensor does to a sharp image, and its reverse: resizing, point spread, sampling, back-projection."""
