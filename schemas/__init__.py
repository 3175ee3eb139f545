"""The contract between the agent and the lake: positions, blocks, change records and their registry."""
