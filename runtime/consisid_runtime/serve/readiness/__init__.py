"""What a server does before it is ready: `warm_up` compiles in each process, `trial` sends the whole a tiny request."""
