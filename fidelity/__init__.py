"""Predictions against published measurements: rows, and the page that is made of them."""
