"""Encoders: images to texture and semantic latents, and back."""
