"""The `headrace` command: one module per verb, and what the verbs share."""

import warnings

# The wheel with PostgreSQL's programs looks for a runtime folder at its import, which nothing here uses.
warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
