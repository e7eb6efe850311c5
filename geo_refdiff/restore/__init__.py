"""Restorers: what turns conditions into fine images, the diffusion model and the classical ones, and models by name."""
