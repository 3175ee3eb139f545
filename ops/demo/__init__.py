"""`headrace demo`: a load on a real PostgreSQL, kills in its middle, and the proof that the lake equals the source."""
