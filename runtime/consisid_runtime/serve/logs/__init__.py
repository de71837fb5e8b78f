"""What a server writes: passed on without waiting for who reads it, and its end kept for error messages."""
