"""Figures: what a person looks at. Functions take tensors and numbers and return matplotlib figures."""
