"""What recipes share: run folder, processes, command line, meters and checkpoints."""
