"""`lwd probe` and `lwd sweep`: stage I on a data set."""
