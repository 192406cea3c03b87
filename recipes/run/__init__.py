"""What recipes share: run folder, processes, command line, meters and checkpoints."""

import importlib.util
import sys

if any(importlib.util.find_spec(module) is None for module in ("accelerate", "yaml")):
    sys.exit("error: the recipes need accelerate and pyyaml: pip install 'cwm-hub[all]'")
