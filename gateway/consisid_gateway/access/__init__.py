"""Who calls, and what they may.

caller          whose request it is
keys            API keys: made, stored as digests, revoked
keyring         keys as one replica knows them
attempts        addresses that try keys which do not exist
authentication  the key of every request but those that anybody may send
rates           requests a minute of a key, of all replicas
limits          what a key may have at once
listeners       streams of events that one key may hold open
streams         streams that end when their key is revoked
sites           no page of another site reaches a gateway through its user's browser
audit           who did what, without faces, prompts and names
"""
