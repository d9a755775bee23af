"""minisession."""
