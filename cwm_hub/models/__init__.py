"""Model graphs: modules take tensors and know nothing of files, loaders or environments."""
