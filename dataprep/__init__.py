"""Raw video to WebDataset shards: the `cwm-dataprep` command. Never imports torch."""
