"""Whether a product keeps what it promises."""
