"""Who may have memory, and who the device: bytes in flight, the queue, and what a request demands."""
