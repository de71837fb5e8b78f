"""What says where a video comes from, and what an operator may ask for before and after it is made.

    marks         what every MP4 says of itself, without a signature
    credentials   C2PA content credentials: signing and checking; needs the extra `provenance`
    hooks         an operator's functions: consent before, a watermark after

Nothing here reaches the network.
"""
