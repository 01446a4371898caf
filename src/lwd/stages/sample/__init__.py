"""`lwd sample`: images by the thousand."""
