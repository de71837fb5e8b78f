"""The bytes of a video.

content    from the store in pieces, whole or a range
ranges     what a caller asks of the bytes
"""
