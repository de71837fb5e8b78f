"""Several servers behind one client: which one takes a request, and what follows where it does not."""
