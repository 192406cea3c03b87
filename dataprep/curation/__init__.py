"""Curation: look at, check, cut down and publish finished shard directories."""
