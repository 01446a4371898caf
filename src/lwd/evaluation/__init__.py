"""Sets of images as a network sees them, and how far apart two are: what `lwd evaluate` and `lwd train` measure."""
