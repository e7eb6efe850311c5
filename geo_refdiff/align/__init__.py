"""Bringing two dates together: radiometry (and, later, registration)."""
