#!/bin/bash
# Runs when a JupyterLab app starts, as the user, before anybody works. Five minutes at most.
set -eu
start="$HOME/.ipython/profile_default/startup"
mkdir -p "$start"
# Shells and kernels find the tracking server without being told.
cat > "$start/00-lifecycle.py" <<PYTHON
import os

for name, value in {"MLFLOW_TRACKING_URI": "@TRACKING@", "AWS_STS_REGIONAL_ENDPOINTS": "regional"}.items():
    if value:
        os.environ.setdefault(name, value)
PYTHON
grep -q MLFLOW_TRACKING_URI "$HOME/.bashrc" 2>/dev/null || echo 'export MLFLOW_TRACKING_URI="@TRACKING@"' >> "$HOME/.bashrc"
