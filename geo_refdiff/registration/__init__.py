"""Bringing two dates together: registration and radiometry."""
