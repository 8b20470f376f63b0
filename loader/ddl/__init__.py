"""Schema changes on their way to raw: read from the stream, decided upon, done in place."""
