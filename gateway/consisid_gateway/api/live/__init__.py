"""Events as they happen.

listening   one look at the database for all jobs that somebody listens to
stream      what one caller is told
"""
