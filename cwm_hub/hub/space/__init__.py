"""A page to look at a model, on one's own machine or as a Hugging Face Space."""
