"""Portraits, checkpoints and videos: a folder, or S3, through obstore. What is stored is never changed, only deleted.

store    the one interface
folder   files that outlive a loss of power
mark     that a store is the one of a database
names    what each object is called
"""
