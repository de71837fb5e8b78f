"""Takes jobs from the queue, has a server make their videos, and takes over from workers that died.

    worker      the whole: it waits for its server, takes jobs while that is ready, and leaves them when told
    session     the time in which it takes jobs, with a heartbeat
    making      one job, from its claim to its end
    faces       one character, whose face is read
    maker       what makes a video: the server beside the worker
    reporting   what a job's owner tells while it computes, and how it learns that it owns the job no longer
    previewing  thumbnail and spritesheet of a finished video
    leading     what one worker does for all: takeover, removal of what is over
    webhooks    calls that tell of the end of a job
    patience    waiting for what does not answer
    steadily    threads that do the same for as long as the process runs

A job's durable state is its row and its last checkpoint; whoever claims it goes on from there.
"""
