"""The agent: carries a source's committed changes into the stream, durably and in order."""
