"""Finding, checking and preparing images."""
