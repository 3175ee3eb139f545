"""The `headrace` command: one module per verb, and what the verbs share."""
