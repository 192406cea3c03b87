"""Recipes: scripts launched with accelerate; the library never imports them."""
