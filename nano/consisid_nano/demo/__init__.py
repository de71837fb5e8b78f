"""`consisid demo`: exports nano, serves it, requests videos and shows them."""
