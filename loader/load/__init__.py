"""A table taken whole from the replica: read at a watermark, merged into raw."""
