"""From Kinesis to the lake: the streaming job, the fold, and what analysts see."""
