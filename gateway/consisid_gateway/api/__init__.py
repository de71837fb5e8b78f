"""The HTTP interface: OpenAI's `/v1/videos`, as its SDK speaks it, with more.

    app           all of it as one application
    parts         what it works on
    dependencies  what every answer needs of its request
    failures      every error as JSON
    answers       what it answers with, in the document and on the wire
    document      the OpenAPI document
    videos        create, remix, list, retrieve, cancel, delete
    accepting     a request becomes a job, once
    characters    portraits with a name
    choices       what a form for a request may offer
    page          the files of the page
    threads       blocking calls, beside the event loop
    reading/      bodies within bounds, and what they ask for
    download/     the bytes of a video
    live/         events as they happen
    headers       what every answer carries for the browser that may read it
    guarded       what stands around the application
    serving       the application on a port

A stream of `GET /v1/videos/{id}/events` has these events, each with JSON as its data:

    state       the video, as `retrieve` answers: first, and when its status or its position in the queue changes
    progress    with an id: stage, done, total, seconds_left, progress (percent), preview (a data URL of a JPEG or null)
    completed   the video; the stream ends
    failed      the same
    deleted     as `delete` answers; the stream ends

`Last-Event-ID` leaves out what was told before; after `completed`, `failed` and `deleted` it is answered with 204,
which keeps a browser from asking again. Comments keep the connection open.

Nothing here knows how videos are made: it writes rows and objects, and reads what workers write.
"""
